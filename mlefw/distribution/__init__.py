"""Distributions, their distribution functions and quantiles, and special functions."""
