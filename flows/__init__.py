"""Prefect's part of the factory: when, where, retries, visibility. It knows DVC's stages and knows no model."""
