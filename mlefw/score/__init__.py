"""Figures of a model on rows: metrics, distances from the exact estimates, recalibration."""
