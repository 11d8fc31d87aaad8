"""The prediction server: HTTP around a model that follows its alias."""
