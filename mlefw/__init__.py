"""Probabilistic deep learning: every loss a negative log-likelihood, every regulariser a negative log-prior."""

from typing import Any


def __getattr__(name: str) -> Any:
    """`mlefw.fit`, which trains, and `mlefw.load`, which opens a trained run: imported when first asked for."""
    from importlib import import_module

    if name == "fit":
        return import_module("mlefw.fit")
    if name == "load":
        return import_module("mlefw.trained").load
    raise AttributeError(f"module 'mlefw' has no attribute {name!r}")
