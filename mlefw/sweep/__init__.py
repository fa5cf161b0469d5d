"""Sweeps: one command run once for each combination of several values of its settings."""
