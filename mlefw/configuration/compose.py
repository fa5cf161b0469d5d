"""Composes YAML files and overrides to plain containers, inserts heads for their names, and replaces references.

Hydra composes once for each choice of members, and plain settings are put into a copy of the result, because composing
takes long and the jobs of a sweep differ mostly in plain settings.
"""

import copy
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override

from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

_NOT_WITHIN_A_HEAD = (None, "multitask", "multivariate_gaussian", "mixture", "censored", "truncated", "hurdle")
"""Heads that cannot be a component or a task of another head."""
_LONGEST = 200
"""Most characters of a value that is put in place of a reference here; OmegaConf replaces longer ones within the limits
of `expansion`."""

_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")

_Key = tuple[str, ...]
"""Folder of YAML files, command, and the overrides that Hydra has to see; also the working directory, where some are
settings of Hydra itself, which may be paths."""

_composed: dict[_Key, DictConfig] = {}
"""Configurations that Hydra has composed in this process."""


def compose(root: Path, command: str, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a command with Hydra's section `hydra`, a copy that the caller may change.

    Args:
        root: the folder of the YAML files.
        command: the name of the primary YAML file.
        overrides: as `override.for_hydra` prepares them.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: an override is wrong.
    """
    key, plain = _base(root, command, overrides)
    config = copy.deepcopy(_composed[key])
    with flag_override(config, ["readonly", "struct"], False):
        config.hydra.runtime.cwd = str(Path.cwd())
    for override in plain:
        forced = override.is_force_add()
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=forced)
    return config


def compose_plain(root: Path, command: str, overrides: Sequence[str]) -> tuple[Node, dict[str, str]]:
    """The configuration of a command in plain containers, without the section `hydra`, and the member of each group.

    References to other settings are not replaced yet.

    Args:
        root: the folder of the YAML files.
        command: the name of the primary YAML file.
        overrides: as `override.for_hydra` prepares them.

    Raises:
        HydraException, OmegaConfBaseException, ValueError: an override is wrong.
    """
    config = compose(root, command, overrides)
    choices = dict(config["hydra"]["runtime"]["choices"])
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return OmegaConf.to_container(config, resolve=False), choices  # type: ignore[return-value]


def _base(root: Path, command: str, overrides: Sequence[str]) -> tuple[_Key, list[Override]]:
    """The key under which Hydra's composition is stored in `_composed`, and the overrides that it does not contain."""
    parsed = [_parsed(override) for override in overrides]
    plain = [override for override in parsed if _is_plain(override)]
    choices = [str(override.input_line) for override in parsed if not _is_plain(override)]
    place = str(Path.cwd()) if any("hydra" in choice for choice in choices) else ""
    key = (str(root), place, command, *choices)
    if key not in _composed:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(root), version_base="1.3"):
            _composed[key] = hydra.compose(command, overrides=choices, return_hydra_config=True)
    return key, plain


@cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_overrides([override])[0]


def _is_plain(override: Override) -> bool:
    """Whether an override sets a plain value, and chooses no files: `++section.key=value`, `seed=1` and the like."""
    if override.package is not None or override.is_sweep_override():
        return False
    key = override.key_or_group
    if override.is_force_add():
        return re.fullmatch(r"(?!hydra\.)\w+(\.\w+)+", key) is not None
    return key in ("seed", "report", "plots", "run_dir") and not (override.is_add() or override.is_delete())


def insert_heads(config: Node, composed: Callable[[str], Node]) -> None:
    """Replace names of heads in `head.tasks` and `head.component` by nodes, and choose the metrics that belong to them.

    Args:
        config: a configuration in plain containers, which is changed.
        composed: maps the name of a head to the configuration that has it, in plain containers.

    Raises:
        UsageError: a name is not that of a head for one target.
    """
    head = config.get("head") or {}
    tasks = head.get("tasks") or {}
    for target, task in tasks.items():
        known = _inserted_head(f"head.tasks.{target}", task, composed)
        if known is not None:
            tasks[target], config["metric"][target] = known
    if "component" in head:
        known = _inserted_head("head.component", head["component"], composed)
        if known is not None:
            head["component"], metric = known
            # A mixture has the metrics of its component; a head of censored numbers keeps its own, which know bounds.
            config["metric"] = config["metric"] if "censored" in config["metric"] else metric


def _inserted_head(setting: str, node: Any, composed: Callable[[str], Node]) -> tuple[Any, Any] | None:
    """The node and the metrics of the head that a setting names; None if the setting is a node already."""
    if isinstance(node, str):
        node = {"head": node}
    if not isinstance(node, dict) or "_target_" in node:
        return None
    name, own = node.get("head"), {key: value for key, value in node.items() if key != "head"}
    if name in _NOT_WITHIN_A_HEAD:
        raise UsageError(f"{setting}={name}: expected the name of a head for one target, such as gaussian")
    chosen = composed(name)
    return {**chosen["head"], **own}, chosen["metric"]


class _NotPlainError(Exception):
    """A reference is not a plain `${a.b}`, or its value is not short plain text: OmegaConf has to resolve it."""


def replace_references(config: Node) -> Node | None:
    """A copy with each `${a.b}` replaced by the value of that setting; None if OmegaConf has to resolve the references.

    OmegaConf takes a hundred times as long.
    """
    try:
        return {key: _replace(value, config) for key, value in config.items()}
    except _NotPlainError:
        return None


def _replace(node: Any, config: Node) -> Any:
    if isinstance(node, dict):
        return {key: _replace(value, config) for key, value in node.items()}
    if isinstance(node, list):
        return [_replace(value, config) for value in node]
    if not isinstance(node, str) or not ("$" in node or node == "???"):
        return node
    if found := _REFERENCE.fullmatch(node):
        return _value_at(config, found.group(1))
    if "$" in _REFERENCE.sub("", node) or "\\" in node or node == "???":
        raise _NotPlainError
    return _REFERENCE.sub(lambda match: _text(_value_at(config, match.group(1))), node)


def _value_at(config: Node, path: str) -> Any:
    """The value of the setting at a dotted path."""
    node: Any = config
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise _NotPlainError
        node = node[key]
    if isinstance(node, dict | list) or "$" in str(node) or node == "???" or len(str(node)) > _LONGEST:
        raise _NotPlainError
    return node


def _text(value: Any) -> str:
    """A value within a longer text; OmegaConf decides how to write others than text and null."""
    if not isinstance(value, str | None):
        raise _NotPlainError
    return str(value)
