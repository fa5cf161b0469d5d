"""Losses: the function of each row that training descends, by default the negative log-likelihood."""
