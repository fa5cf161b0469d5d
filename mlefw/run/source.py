"""Opens the data source of a run, and tells it how the head takes the target."""

from typing import Any

from mlefw.configuration.admission import admit
from mlefw.configuration.instantiate import class_of, instantiate
from mlefw.configuration.settings import Node, Settings
from mlefw.data.base import Source
from mlefw.errors import MisfitError
from mlefw.head.censored import CensoredHead
from mlefw.schema.support import check_targets
from mlefw.system.address import check_named


def head_kind(node: Node) -> Any:
    """The class of a head; it says how its target is coded, which is needed before a head can be built."""
    return class_of(admit("head", node))


_PAIR = 2
"""Columns of a target with its number of trials."""


def takes_trials(node: Node) -> bool:
    """Whether a head, or that of its component, counts successes out of the trials of each row."""
    if isinstance(node.get("component"), dict):
        return takes_trials(node["component"])
    return getattr(head_kind(node), "takes_trials", False) and node.get("trials") is None


def source_of(node: Node) -> Source:
    """The data source of the section `data`.

    Raises:
        UsageError: it names an address on another machine that the user has not named.
    """
    check_named(value for value in node.values() if isinstance(value, str))
    source: Source = instantiate("data", node)
    return source


def open_source(config: Settings) -> Source:
    """The data source of a run, with bounds, partial targets and classes as the head takes them.

    Raises:
        MisfitError: the source is a text, and the head takes no labels.
        UsageError: the roles of its columns do not fit the head, or contradict each other.
    """
    source = source_of(config.data)
    kind, tasks = head_kind(config.head), config.head.get("tasks") or {}
    if source.form == "tokens" and getattr(kind, "target", "numeric") != "labels":
        # Heads of several targets would ask for columns, which a text has none of.
        raise MisfitError("the next token is one of many labels: expected head=categorical")
    trials = takes_trials(config.head)
    if trials and source.trials is None and len(source.targets) == _PAIR:
        source.target, source.trials = source.targets
    check_targets(source, kind, tasks, trials)
    source.bounds = issubclass(kind, CensoredHead) and not source.event
    source.partial = getattr(kind, "partial", False) and not source.event
    source.classes = getattr(kind, "target", "numeric") != "numeric"
    source.check_split()
    return source
