"""Hydra's own section of a sweep's configuration: much of it Hydra would run, so it is held to what mlefw has there."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from mlefw.configuration.admission import admit
from mlefw.configuration.read import hydra_section, resolve
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

_OTHER = ("launcher.", "sweeper.", "runtime.", "overrides.", "job.name", "job.override_dirname", "job.config_name")
"""What differs from run to run."""


def launcher_settings(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> Node:
    """The settings of the launcher that a sweep has chosen.

    Args:
        command: whose configuration it is.
        overrides: those of one job.
        config_dirs: where files may come from.

    Raises:
        UsageError: a launcher, a sweeper or a setting of theirs that is not admitted, or any other setting of Hydra's.
    """
    section = hydra_section(command, overrides, config_dirs)
    now, usual = (
        _leaves(OmegaConf.to_container(one, resolve=False))
        for one in (section, hydra_section(command, [], config_dirs))
    )
    for name in {**usual, **now}:
        if now.get(name) != usual.get(name) and not name.startswith(_OTHER):
            raise UsageError(f"hydra.{name}: only hydra/launcher and hydra/sweeper, and their settings, can be chosen")
    settings = {slot: OmegaConf.to_container(section[slot], resolve=False) for slot in ("launcher", "sweeper")}
    for slot, node in settings.items():
        admit(f"hydra.{slot}", node)
    if settings["sweeper"].get("params"):  # type: ignore[union-attr]
        raise UsageError("hydra.sweeper.params: expected swept settings on the command line, which are checked")
    return resolve({"launcher": settings["launcher"]})["launcher"]


def _leaves(node: Any, prefix: str = "") -> Node:
    """Everything but containers, by its path."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        return {prefix: node}
    return {name: leaf for key, value in items for name, leaf in _leaves(value, f"{prefix}.{key}".strip(".")).items()}
