"""Hydra's composition, done once for each choice of members: the jobs of a sweep differ mostly in plain settings."""

import copy
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from mlefw.configuration.settings import Node

_Key = tuple[str, ...]

_composed: dict[_Key, DictConfig] = {}


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
    """The configuration of a command without Hydra's node, as plain containers with interpolations as they are, and the
    members chosen.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: an override is wrong.
    """
    config = compose(root, command, overrides)
    choices = dict(config["hydra"]["runtime"]["choices"])
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=False), choices  # type: ignore[return-value]


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
