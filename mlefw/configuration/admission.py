"""Decides which objects a configuration may build, before anything is imported (see `docs/trust.md`).

A configuration is data, whoever wrote it: a command line, a YAML file, a checkpoint. A node (a mapping with `_target_`)
asks for an object. It is admitted if it stands in a slot (a section such as `head`) and names a class of the kind of
that slot: from a package of mlefw or its libraries that holds such classes, or from a package that a person has
admitted by `--plugin`. A function, a class of another kind, or one that is defined in another package is refused.
"""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import Any

from mlefw.configuration.kinds import KINDS, Kind
from mlefw.configuration.lightning_doors import DOORS, door_of, refusal
from mlefw.errors import UsageError
from mlefw.system.trust import installed, trust, trusted

MAX_DEPTH = 32
"""Most containers within each other in the settings of a part."""
MAX_VALUES = 1_000_000
"""Most values in a whole configuration."""

_SPECIAL = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Keys that have a meaning of their own to Hydra."""

_PLACES = {"logger": ("save_dir", "name", "version", "sub_dir"), "callback": ("dirpath", "filename")}
"""Arguments by which loggers and callbacks of mlefw and Lightning say where they write, joined in this order."""


@dataclass(frozen=True)
class Part:
    """An admitted node of a configuration: the class that it names, and its settings.

    Attributes:
        kind: the slot, a key of `KINDS`.
        target: the full name of the class.
        settings: its arguments: plain values, parts, and containers of these.
        packages: packages outside mlefw that a person has admitted.
    """

    kind: str
    target: str
    settings: Mapping[str, Any]
    packages: tuple[str, ...]

    def find(self) -> type:
        """The class of the part; its module is imported.

        Raises:
            UsageError: there is no such class, or it is of another kind.
            Exception: whatever an import raises.
        """
        return _find(self.kind, self.target, self.packages)


def admit(slot: str, node: Any) -> Part:
    """The part that a node describes; classes may come from the packages admitted in this process so far.

    Args:
        slot: a key of `KINDS`.
        node: a node of a configuration, in plain containers.

    Raises:
        UsageError: naming everything in the node that is not admitted. Nothing was imported.
    """
    reader = _Reader(trusted())
    part = reader.part(slot, slot, node)
    reader.close()
    assert part is not None
    return part


def admitted(config: Mapping[str, Any], packages: Sequence[str] = ()) -> dict[str, Part]:
    """Every part of a configuration by its path, such as `head` or `metric.nll`. Admits packages in this process.

    Args:
        config: the configuration, or sections of it, in plain containers; loggers may write below its `run_dir` only.
        packages: packages whose classes a person has admitted, in addition to installed plugins.

    Raises:
        UsageError: naming everything that is not admitted. Nothing was imported.
    """
    reader = _Reader((*packages, *installed()))
    parts = dict(reader.sections(config))
    reader.close()
    trust(packages)
    return parts


class _Reader:
    """Goes through containers once, in bounded time, and collects messages on what is not admitted.

    `left` is the number of values that may still be read.
    """

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages, self.problems, self.left = tuple(packages), list[str](), MAX_VALUES

    def close(self) -> None:
        """Raise a UsageError with all messages, if there are any."""
        if self.problems:
            raise UsageError("\n".join(self.problems))

    def sections(self, config: Mapping[str, Any]) -> Iterator[tuple[str, Part]]:
        """The parts of a configuration with their paths."""
        for key, value in config.items():
            kind = KINDS.get(str(key))
            if kind is not None and value is not None and not isinstance(value, dict):
                self.problems.append(f"{key}={str(value)[:200]} was refused: expected a member with its settings")
            elif kind is None or value is None:
                self.plain(str(key), value)
            elif not kind.many:
                yield from self._one(str(key), value)
            else:
                for name, node in value.items():
                    yield from self._some(str(key), f"{key}.{name}", node)
        for slot in DOORS:
            if isinstance(members := config.get(slot), dict):
                for name, node in members.items():
                    self._check_place(slot, f"{slot}.{name}", node, str(config.get("run_dir")))

    def _one(self, slot: str, node: dict[Any, Any]) -> Iterator[tuple[str, Part]]:
        """The part of a slot for one part; none if the section has settings without a class, as `data` may."""
        if "_target_" not in node:
            self.plain(slot, node)
        elif (part := self.part(slot, slot, node)) is not None:
            yield slot, part

    def _some(self, slot: str, path: str, node: Any) -> Iterator[tuple[str, Part]]:
        """The part of a name in a slot for several; of several targets each has metrics by name."""
        if slot == "metric" and isinstance(node, dict) and "_target_" not in node:
            for name, one in node.items():
                yield from self._some("metric.", f"{path}.{name}", one)
        elif not isinstance(node, dict) or "_target_" not in node:
            self.plain(path, node)
            self.problems.append(f"{path} names no member: expected a mapping with _target_")
        elif (part := self.part(slot.rstrip("."), path, node)) is not None:
            yield path, part

    def part(self, slot: str, path: str, node: Any, depth: int = 0) -> Part | None:
        """The part that a node describes; None if it is refused."""
        kind, count = KINDS[slot], len(self.problems)
        if not isinstance(node, dict) or "_target_" not in node:
            self.problems.append(f"{path} names no member: expected a mapping with _target_")
            return None
        target, partial = node["_target_"], node.get("_partial_", kind.deferred)
        if (expected := refusal(slot, str(target)) or self._refusal(kind, target)) is not None:
            self.problems.append(f"{path}._target_={str(target)[:200]!r} was refused: expected {expected}")
        if partial is not kind.deferred:
            self.problems.append(f"{path}._partial_={partial!r} was refused: expected {kind.deferred} or nothing")
        own = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
        settings = self._mapping(path, own, slot if kind.nests else None, depth)
        return None if len(self.problems) > count else Part(slot, target, settings, self.packages)

    def plain(self, path: str, value: Any) -> None:
        """Check that a setting outside of parts holds plain values only."""
        self._value(path, value, None, 0)

    def _refusal(self, kind: Kind, target: Any) -> str | None:
        """What was expected in place of a `_target_`; None if its module may be imported."""
        is_name = isinstance(target, str) and all(word.isidentifier() for word in target.split("."))
        if is_name and (target in kind.names or _is_within(target, (*kind.homes, *kind.reexports, *self.packages))):
            return None
        known = " or ".join(kind.homes) if kind.homes else ", ".join(kind.names)
        return f"something from {known}, or from a package admitted by --plugin"

    def _mapping(self, path: str, node: dict[Any, Any], nested: str | None, depth: int) -> dict[Any, Any]:
        """A copy of a mapping with parts for nodes, without keys that have a meaning to Hydra."""
        found = {}
        for key, value in node.items():
            if not isinstance(key, str | int) or key in _SPECIAL:
                self.problems.append(f"{path}.{key} was refused: expected settings of {path} by their names")
            else:
                found[key] = self._value(f"{path}.{key}", value, nested, depth + 1)
        return found

    def _value(self, path: str, value: Any, nested: str | None, depth: int) -> Any:
        """A copy of a value with parts for nodes; `nested` is the slot of their kind, None if nodes are refused."""
        if self.left and (depth > MAX_DEPTH or self.left == 1):
            self.problems.append(f"{path[:100]} was refused: too many settings, or too deep within each other")
            self.left = 0
        if not self.left:
            return None
        self.left -= 1
        if isinstance(value, dict) and "_target_" in value:
            if nested is not None:
                return self.part(nested, path, value, depth)
            expected = "simple, advanced or pytorch" if path == "trainer.profiler" else "a plain value"
            self.problems.append(f"{path}._target_={str(value['_target_'])[:200]!r} was refused: expected {expected}")
            return None
        if isinstance(value, dict):
            return self._mapping(path, value, nested, depth)
        if isinstance(value, list | tuple):
            return [self._value(f"{path}[{k}]", item, nested, depth + 1) for k, item in enumerate(value)]
        if value is not None and not isinstance(value, str | int | float):
            self.problems.append(f"{path}: expected a plain value, and not a {type(value).__name__}")
        return value

    def _check_place(self, slot: str, path: str, node: Any, run_dir: str) -> None:
        """Check that a logger or callback of mlefw or Lightning writes below the run directory.

        Those of plugins are trusted; so are those of Lightning where it was named as a plugin.
        """
        target = node.get("_target_") if isinstance(node, dict) else None
        if target not in KINDS[slot].names or _is_within(str(target), self.packages):
            return
        folder, *inner = _PLACES[slot]
        first = run_dir if node.get(folder) is None else str(node[folder])
        places = [first, *(str(node[name]) for name in inner if node.get(name) not in (None, ""))]
        # `..` is resolved in the text alone: links need no look, since writing replaces a link and never follows it.
        below = os.path.relpath(os.path.normpath(PurePath(*places)), os.path.normpath(run_dir))
        if ".." in PurePath(below).parts or any(sign in below for sign in "$~:"):
            self.problems.append(f"{path} writes to {'/'.join(places)!r}: expected a place below ${{run_dir}}")


def _is_within(name: str, packages: Sequence[str]) -> bool:
    return any(name.startswith(f"{package}.") for package in packages)


def _find(slot: str, target: str, packages: tuple[str, ...]) -> type:
    """The class of a target, imported; it must inherit a base of the kind, and be defined in an admitted package."""
    kind = KINDS[slot]
    module, _, name = target.rpartition(".")
    found = getattr(import_module(module), name, None)
    bases = tuple(getattr(import_module(base.rpartition(".")[0]), base.rpartition(".")[2]) for base in kind.bases)
    if inspect.isclass(found) and (door := door_of(slot, found)) is not None and not door.is_open:
        raise UsageError(door.words.removeprefix("expected "))
    if not (inspect.isclass(found) and issubclass(found, bases)):
        raise UsageError(f"a subclass of {' or '.join(kind.bases)}")
    if target not in kind.names and not _is_within(f"{found.__module__}.", (*kind.homes, *packages)):
        raise UsageError(f"a class where it is defined: this one is of {found.__module__}")
    return found
