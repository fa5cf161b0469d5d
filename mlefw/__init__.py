"""Probabilistic deep learning as maximum likelihood: losses are negative log-likelihoods, regularisers negative log-priors."""
