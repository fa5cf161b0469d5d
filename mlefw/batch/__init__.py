"""Batch regimes: which rows each optimiser step sees, and at what scale."""
