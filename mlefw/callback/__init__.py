"""Callbacks: they read and log, and never change the training."""
