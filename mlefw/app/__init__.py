"""A page on this machine on which gradient descent is watched on its way to the exact estimate."""
