"""Recalibration: maps of predictive distributions, fitted on validation rows after training."""
