"""Experiments on the theory behind mlefw: each compares measured with predicted values and draws a picture."""
