"""What training descends: the negative log-likelihood, or a tweak of it, named as such."""
