"""Likelihood heads: from the network output eta to the distribution of y given x."""
