"""What happens to rows before any model sees them: fetched, read, checked, cut into splits, written clean."""
