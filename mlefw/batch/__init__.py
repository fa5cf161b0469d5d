"""Batch regimes: which rows each optimiser step sees, and the factor of their sum."""
