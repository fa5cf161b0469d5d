"""Probabilistic deep learning: every loss a negative log-likelihood, every regulariser a negative log-prior."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`mlefw.fit` trains, `mlefw.load` opens a trained run, and `mlefw.anova` tests models against each other.

    They are imported on first use, since torch takes seconds.
    """
    from importlib import import_module

    if name == "fit":
        return import_module("mlefw.fit")
    if name == "anova":
        return import_module("mlefw.fit").anova
    if name == "load":
        return import_module("mlefw.trained").load
    raise AttributeError(f"module 'mlefw' has no attribute {name!r}")
