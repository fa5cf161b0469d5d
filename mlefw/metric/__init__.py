"""Metrics of a predictive distribution against observed targets, as sums that merge exactly."""
