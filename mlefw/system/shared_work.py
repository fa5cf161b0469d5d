"""Work that equal parts of a configuration share: done once in the process that forks the jobs of a sweep."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mlefw.system.random_state import Stream

T = TypeVar("T")

_OURS = ("mlefw.", "lightning.Trainer")

_MOST = 96
_MOST_BYTES = 2**24
_MOST_ROWS = 100_000


class _Known(NamedTuple):
    value: Any
    warnings: list[warnings.WarningMessage]


_known: dict[str, _Known] = {}
_asked: set[str] = set()
_state = {"is_open": False}


@contextmanager
def remembering() -> Iterator[None]:
    """Keep what is computed while the block runs; forks made inside and after it have it, too."""
    _state["is_open"] = True
    try:
        yield
    finally:
        _state["is_open"] = False


@contextmanager
def sharing() -> Iterator[None]:
    """Keep what is computed while the block runs up to its end: of several runs with the same rows in one process."""
    before, asked, was_open = dict(_known), set(_asked), _state["is_open"]
    _state["is_open"] = True
    try:
        yield
    finally:
        # Rows that a program has handed over have no name by which others could be told from them.
        forget()
        _known.update(before)
        _asked.update(asked)
        _state["is_open"] = was_open


def is_little(config: Mapping[str, Any]) -> bool:
    """Whether the data are few, and code of mlefw alone has to do with them; and not much is kept already."""
    data = config["data"]
    files = [Path(data[name]) for name in ("path", "test_path", "validation_path") if data.get(name)]
    ours = all(_is_ours(config.get(name)) for name in ("data", "head", "prior", "baseline", "inputs", "model"))
    few = data.get("num_rows", 0) <= _MOST_ROWS and all(file.is_file() for file in files)
    return ours and few and sum(file.stat().st_size for file in files) <= _MOST_BYTES and len(_known) < _MOST


def forget() -> None:
    """Forget all of it."""
    _known.clear()
    _asked.clear()


def is_known(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether `once` has the result."""
    return _key(kind, config, names) in _known


def is_wanted(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether this is asked for the second time, and `once` does not have the result."""
    key = _key(kind, config, names)
    wanted = key in _asked and key not in _known
    _asked.add(key)
    return wanted


def once(kind: str, config: Mapping[str, Any], names: tuple[str, ...], compute: Callable[[], T]) -> T:
    """The result of `compute`, which depends on these parts of a configuration alone: the known one where there is one.

    What it warned of is warned of again. Nothing may change the result. Parts that are not of mlefw, of which nothing
    is known, are not remembered.
    """
    key = _key(kind, config, names)
    if key in _known:
        for one in _known[key].warnings:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return _known[key].value
    # What one run computes and the next one finds may not move a generator of either.
    if not _state["is_open"] or not all(_is_ours(config.get(name)) for name in names):
        with Stream(0, kind):
            return compute()
    with Stream(0, kind), warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        value = compute()
    _known[key] = _Known(value, met)
    return value


def _key(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    # Of a cross-validation every fold has rows of its own.
    parts = {name: config.get(name) for name in (*names, "cv", "ensemble")}
    return f"{kind} {json.dumps(parts, sort_keys=True, default=str)}"


def _is_ours(part: Any) -> bool:
    return not isinstance(part, dict) or str(part.get("_target_", "mlefw.")).startswith(_OURS)
