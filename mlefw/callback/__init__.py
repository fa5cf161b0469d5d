"""Callbacks: they read, log, keep and end a training; they never change its weights or gradients."""
