"""What a model's folder may hold, and the manifest and the facts that are drawn from it."""
