"""What training minimises: the mean negative log-likelihood plus the negative log-prior per observation."""
