"""What happens to data and models: stages, model families and techniques. Knows no Prefect, no DVC, no S3."""
