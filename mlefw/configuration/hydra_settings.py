"""Checks Hydra's own section (`hydra`) of a sweep: launcher and sweeper can be chosen, everything else is mlefw's.

Hydra imports and calls much of what this section names, so a foreign YAML file must not change it.
"""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from mlefw.configuration.admission import admit
from mlefw.configuration.read import hydra_section, resolve
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

_MAY_DIFFER = ("launcher.", "sweeper.", "runtime.", "overrides.", "job.name", "job.override_dirname", "job.config_name")
"""Settings that may differ from mlefw's: the choice of launcher and sweeper, and what Hydra notes about a run."""


def sweep_settings(command: str, overrides: Sequence[str], config_dirs: Sequence[str]) -> tuple[Node, Node]:
    """The settings of the launcher and of the sweeper that a sweep has chosen.

    Args:
        command: the command that the sweep runs.
        overrides: the overrides of one job.
        config_dirs: folders of further YAML files.

    Raises:
        UsageError: the launcher, the sweeper or one of their settings is not admitted, or another setting of Hydra is
            changed.
    """
    section = hydra_section(command, overrides, config_dirs)
    now, usual = (
        _leaves(OmegaConf.to_container(one, resolve=False))
        for one in (section, hydra_section(command, [], config_dirs))
    )
    for name in {**usual, **now}:
        if now.get(name) != usual.get(name) and not name.startswith(_MAY_DIFFER):
            raise UsageError(f"hydra.{name}: only hydra/launcher and hydra/sweeper, and their settings, can be chosen")
    settings = {slot: OmegaConf.to_container(section[slot], resolve=False) for slot in ("launcher", "sweeper")}
    for slot, node in settings.items():
        admit(f"hydra.{slot}", node)
    if settings["sweeper"].get("params"):  # type: ignore[union-attr]
        raise UsageError("hydra.sweeper.params: expected swept settings on the command line, which are checked")
    if str(settings["launcher"].get("_target_", "")).startswith("mlefw."):  # type: ignore[union-attr]
        settings = resolve(settings)
    # References of other launchers are to further settings of Hydra, which are known when it starts them.
    return settings["launcher"], settings["sweeper"]  # type: ignore[return-value]


def _leaves(node: Any, prefix: str = "") -> Node:
    """The values in nested containers by their dotted paths."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        return {prefix: node}
    return {name: leaf for key, value in items for name, leaf in _leaves(value, f"{prefix}.{key}".strip(".")).items()}
