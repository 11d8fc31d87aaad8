"""Bytes on their way between a folder and a store, under the digest of their content."""
