"""The settings of runs as single values by name, and those in which runs differ."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlefw.configuration.settings import Node

_NOT_OF_RESULTS = (
    *("run_dir", "resume", "report", "plots", "explanation", "compile", "table", "glance"),
    *("logger", "callback", "metric"),
)
"""Settings and groups that change no trained model."""

_IN_SECTIONS = ("checkpoint.", "step.per_chunk", "step.replay", "trainer.enable_", "trainer.num_sanity")
"""Beginnings of names of further ones."""

_CHOOSING = ("data", "model", "head", "batch", "optimizer")
"""Groups whose members may choose those of other groups, the earlier ones those of the later ones."""

_CHOSEN = ("inputs", "optimizer", "scheduler", "average", "trainer", "head", "loss")
"""Groups that may be chosen by members of others."""


def scalars(config: Node) -> dict[str, Any]:
    """The settings that may change a trained model: group choices by the name of the group, others by their path.

    Args:
        config: the content of `config.yaml`, in plain containers.
    """
    choices: Mapping[str, str | None] = config.get("choices") or {}
    found: dict[str, Any] = {name: choice for name, choice in choices.items() if choice is not None}
    for name, value in config.items():
        if name != "choices":
            found |= _leaves(name, value)
    return {name: value for name, value in found.items() if not _is_left_out(name)}


def differing(configs: Sequence[Node]) -> dict[str, list[Any]]:
    """The settings in which some configurations differ, with the value of each; None where a part has no such setting.

    A setting that follows from the member chosen in its group, as all settings of two heads do that share none, is left
    out, and so is the choice in a group which follows from that in another one, as the optimiser may from the model.

    Args:
        configs: contents of `config.yaml`, in plain containers.
    """
    each = [scalars(config) for config in configs]
    names = list(dict.fromkeys(name for one in each for name in one))
    columns = {name: [one.get(name) for one in each] for name in names}
    columns = {name: values for name, values in columns.items() if len({repr(value) for value in values}) > 1}
    groups = {name for config in configs for name in config.get("choices") or {}}
    return {
        name: values
        for name, values in columns.items()
        if not any(_follows(values, columns[cause]) for cause in _causes(name, groups) if cause in columns)
    }


def _causes(name: str, groups: Iterable[str]) -> Sequence[str]:
    """The settings that may decide another one."""
    section, _, path = name.partition(".")
    if not path:
        before = _CHOOSING[: _CHOOSING.index(name)] if name in _CHOOSING else _CHOOSING
        return before if name in _CHOSEN else ()
    if section == "data":
        return ("data", "formula")
    return (section,) if section in groups else _CHOOSING


def _leaves(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """The values below a node by their paths; a list is one value."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, inner in value.items():
        if not str(key).startswith("_"):
            yield from _leaves(f"{name}.{key}", inner)


def _is_left_out(name: str) -> bool:
    return name.partition(".")[0] in _NOT_OF_RESULTS or name.startswith(_IN_SECTIONS)


def _follows(values: Sequence[Any], cause: Sequence[Any]) -> bool:
    """Whether equal causes have equal values."""
    known: dict[str, str] = {}
    return all(
        known.setdefault(repr(key), repr(value)) == repr(value) for key, value in zip(cause, values, strict=True)
    )
