"""Hydra admits plugins from this package alone; those of mlefw are imported when they are asked for."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name not in ("ForkLauncher", "GridSweeper"):
        raise AttributeError(name)
    from mlefw.sweep import launcher

    return getattr(launcher, name)
