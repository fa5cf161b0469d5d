"""The figures of a model on rows, beside those of the exact estimates."""
