"""Experiments that show what the framework rests on: each prints measured beside predicted, and draws a picture."""
