"""What stages do with models that answer token by token: label, prune, export, measure."""
