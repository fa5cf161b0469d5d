"""From files and overrides to plain containers: composed by Hydra, heads put in the place of their names, references
replaced. Hydra composes once for each choice of members: the jobs of a sweep differ mostly in plain settings.
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
from omegaconf import DictConfig, OmegaConf

from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

_NOT_INSIDE = (None, "multitask", "multivariate_gaussian", "mixture", "censored")
_LONGEST = 200
"""Characters that are put in place of a reference here; how much longer ones make in all is for others to bound."""

_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")

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


def open_heads(config: Node, composed: Callable[[str], Node]) -> None:
    """Put the node of a head in the place of its name, in `head.tasks` and `head.component`, and its metrics.

    Args:
        config: a configuration in plain containers, which is changed.
        composed: the configuration with the head of a name.

    Raises:
        UsageError: a name that is not that of a head for one target.
    """
    head = config.get("head") or {}
    tasks = head.get("tasks") or {}
    for target, task in tasks.items():
        known = _opened(f"head.tasks.{target}", task, composed)
        if known is not None:
            tasks[target], config["metric"][target] = known
    if "component" in head:
        known = _opened("head.component", head["component"], composed)
        if known is not None:
            head["component"], metric = known
            # What a head of censored numbers measures is its own; a mixture is measured as its component is.
            config["metric"] = config["metric"] if "censored" in config["metric"] else metric


def _opened(setting: str, node: Any, composed: Callable[[str], Node]) -> tuple[Any, Any] | None:
    """The node of a head that is named, and its metrics; None where it is a node already."""
    if isinstance(node, str):
        node = {"head": node}
    if not isinstance(node, dict) or "_target_" in node:
        return None
    name, own = node.get("head"), {key: value for key, value in node.items() if key != "head"}
    if name in _NOT_INSIDE:
        raise UsageError(f"{setting}={name}: expected the name of a head for one target, such as gaussian")
    chosen = composed(name)
    return {**chosen["head"], **own}, chosen["metric"]


class _UnclearError(Exception):
    """Only OmegaConf can tell what is meant."""


def replaced(config: Node) -> Node | None:
    """A copy with each `${a.b}` replaced by that value; None where there is more to it than plain references.

    OmegaConf, which can do it all, takes a hundred times as long.
    """
    try:
        return {key: _replaced(value, config) for key, value in config.items()}
    except _UnclearError:
        return None


def _replaced(node: Any, config: Node) -> Any:
    if isinstance(node, dict):
        return {key: _replaced(value, config) for key, value in node.items()}
    if isinstance(node, list):
        return [_replaced(value, config) for value in node]
    if not isinstance(node, str) or not ("$" in node or node == "???"):
        return node
    if found := _REFERENCE.fullmatch(node):
        return _at(config, found.group(1))
    if "$" in _REFERENCE.sub("", node) or "\\" in node or node == "???":
        raise _UnclearError
    return _REFERENCE.sub(lambda match: _text(_at(config, match.group(1))), node)


def _at(config: Node, path: str) -> Any:
    node: Any = config
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            raise _UnclearError
        node = node[key]
    if isinstance(node, dict | list) or "$" in str(node) or node == "???" or len(str(node)) > _LONGEST:
        raise _UnclearError
    return node


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise _UnclearError
    return str(value)
