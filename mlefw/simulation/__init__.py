"""Gradient descent and repeated data sets beside exact theory."""
