"""The report a person looks at, and the model card that travels with the bundle."""
