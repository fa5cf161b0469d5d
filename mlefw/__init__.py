"""Probabilistic deep learning: every loss a negative log-likelihood, every regulariser a negative log-prior."""
