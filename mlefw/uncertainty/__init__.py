"""Uncertainty of the parameters of a trained model, and predictions averaged over it."""
