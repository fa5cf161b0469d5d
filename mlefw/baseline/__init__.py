"""The exact side: null model, linear maximum likelihood and MAP estimates, with certificates."""
