"""Metrics of a predictive distribution against observed targets, computed from sums over rows."""
