"""One run: from a configuration to a trained model on disk, and back."""
