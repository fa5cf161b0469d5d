"""Hydra's composition, done once for each choice of members: the jobs of a sweep differ mostly in plain settings."""

import copy
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from mlefw.configuration.settings import Node

_Key = tuple[str, ...]

_composed: dict[_Key, DictConfig] = {}
_contained: dict[_Key, Node] = {}


def compose(root: Path, command: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command with Hydra's own node in it, a copy that the caller may change.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: an override is wrong.
    """
    key, plain = _base(root, command, overrides)
    config = copy.deepcopy(_composed[key])
    for override in plain:
        forced = override.is_force_add()
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=forced)
    return config


def contain(root: Path, command: str, overrides: Sequence[str]) -> tuple[Node, dict[str, str]]:
    """The same without Hydra's node, as plain containers with interpolations as they are, and the members chosen.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: an override is wrong.
    """
    key, plain = _base(root, command, overrides)
    choices = dict(_composed[key]["hydra"]["runtime"]["choices"])
    if key not in _contained:
        _contained[key] = _container(copy.deepcopy(_composed[key]))
    config = copied(_contained[key])
    # OmegaConf does the same, in ten times the time.
    if all(_put(config, override) for override in plain):
        return config, choices
    return _container(compose(root, command, overrides)), choices


def copied(node: Any) -> Any:
    """A copy of plain containers."""
    if isinstance(node, dict):
        return {key: copied(value) for key, value in node.items()}
    return [copied(value) for value in node] if isinstance(node, list) else node


def _container(config: DictConfig) -> Node:
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=False)  # type: ignore[return-value]


def _put(config: Node, override: Override) -> bool:
    """Set the value of an override; False where it is one to be merged."""
    *path, name = override.key_or_group.split(".")
    value, node = override.value(), config
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None  # type: ignore[assignment]
    items = value if isinstance(value, list) else [value]
    if not isinstance(node, dict) or isinstance(node.get(name), dict):
        return False
    if any(not isinstance(item, str | int | float | None) or "${" in str(item) for item in items):
        return False
    node[name] = copied(value)
    return True


def _base(root: Path, command: str, overrides: Sequence[str]) -> tuple[_Key, list[Override]]:
    parsed = [_parsed(override) for override in overrides]
    plain = [override for override in parsed if _is_plain(override)]
    choices = [str(override.input_line) for override in parsed if not _is_plain(override)]
    key = (str(root), str(Path.cwd()), command, *choices)
    if key not in _composed:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(root), version_base="1.3"):
            _composed[key] = hydra.compose(command, overrides=choices, return_hydra_config=True)
    return key, plain


@cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _is_plain(override: Override) -> bool:
    """Whether an override sets a value after all files are read: `++section.key=value`, or one of the run itself."""
    if override.package is not None or override.is_sweep_override():
        return False
    key = override.key_or_group
    if override.is_force_add():
        return re.fullmatch(r"(?!hydra\.)\w+(\.\w+)+", key) is not None
    return key in ("seed", "report", "plots", "run_dir") and not (override.is_add() or override.is_delete())
