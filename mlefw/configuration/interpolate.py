"""Interpolations of plain containers: what OmegaConf does, for the references that occur, in a tenth of the time."""

import re
from typing import Any

from mlefw.configuration.settings import Node

_LONGEST = 200
"""Characters that are put in place of a reference here; how much longer ones make in all is for others to bound."""

_REFERENCE = re.compile(r"\$\{(\w+(?:\.\w+)*)\}")


class _UnclearError(Exception):
    """Only OmegaConf can tell what is meant."""


def replaced(config: Node) -> Node | None:
    """A copy with each `${a.b}` replaced by that value; None where there is more to it than plain references."""
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
