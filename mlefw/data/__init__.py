"""Data sources, which read tables from files, from memory or from a generator of random rows."""
