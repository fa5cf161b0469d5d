"""Heads that are made of heads: the name of a head in a configuration becomes its node."""

from collections.abc import Callable
from typing import Any

from mlefw.configuration.settings import Node
from mlefw.errors import UsageError

_NOT_INSIDE = (None, "multitask", "multivariate_gaussian", "mixture", "censored")


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
