"""Data sources: where the rows come from."""
