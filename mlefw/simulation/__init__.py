"""Simulations of gradient descent and of repeated data sets, to compare with theory."""
