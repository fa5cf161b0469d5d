"""Priors on weights: negative log-densities and their proximal maps."""
