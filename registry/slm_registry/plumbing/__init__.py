"""What every room stands on, and what knows of no model: files, digests, JSON, threads, and what may be printed."""
