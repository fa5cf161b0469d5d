"""Uncertainty of the parameters: how far a network's own predictions might be off."""
