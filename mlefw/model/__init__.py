"""Models: from features to the raw output."""
