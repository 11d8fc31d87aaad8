"""What happens to a model, told as it happens."""
