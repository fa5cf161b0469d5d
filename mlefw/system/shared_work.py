"""Results that several runs of one process and its forks share, because they depend on equal settings.

So the jobs of a sweep read the data and solve for the exact estimates once.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from mlefw.system.random_state import RandomStream

T = TypeVar("T")

_OURS = ("mlefw.", "lightning.Trainer")
"""How the `_target_` of settings begins whose code is known to depend on nothing but its settings."""

_MAX_RESULTS = 96
_MAX_FILE_BYTES = 2**24
_MAX_ROWS = 100_000


class _Result(NamedTuple):
    value: Any
    warnings: list[warnings.WarningMessage]


_results: dict[str, _Result] = {}
_requested: set[str] = set()
_state = {"is_open": False}


@contextmanager
def shared_with_forks() -> Iterator[None]:
    """Store the results that are computed while the block runs, for this process and the forks that it makes later."""
    _state["is_open"] = True
    try:
        yield
    finally:
        _state["is_open"] = False


@contextmanager
def shared_within_block() -> Iterator[None]:
    """Store the results that are computed while the block runs, until it ends: for several runs on the same rows."""
    before, requested, was_open = dict(_results), set(_requested), _state["is_open"]
    _state["is_open"] = True
    try:
        yield
    finally:
        # Rows handed over by a Python program look alike in the settings, whatever they are: the next ones may differ.
        clear()
        _results.update(before)
        _requested.update(requested)
        _state["is_open"] = was_open


def is_shareable(config: Mapping[str, Any]) -> bool:
    """Whether results for these settings are to be stored: the data are small, no plugin reads or models them, and few
    results are stored already.
    """
    data = config["data"]
    files = [Path(data[name]) for name in ("path", "test_path", "validation_path") if data.get(name)]
    ours = all(_is_ours(config.get(name)) for name in ("data", "head", "prior", "baseline", "inputs", "model"))
    small = data.get("num_rows", 0) <= _MAX_ROWS and all(file.is_file() for file in files)
    small = small and sum(file.stat().st_size for file in files) <= _MAX_FILE_BYTES
    return ours and small and len(_results) < _MAX_RESULTS


def clear() -> None:
    """Remove all stored results."""
    _results.clear()
    _requested.clear()


def has_result(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether `compute_once` has stored the result; arguments as there."""
    return _key(kind, config, names) in _results


def is_second_request(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    """Whether this is the second request for a result that `compute_once` has not stored; arguments as there."""
    key = _key(kind, config, names)
    wanted = key in _requested and key not in _results
    _requested.add(key)
    return wanted


def compute_once(kind: str, config: Mapping[str, Any], names: tuple[str, ...], compute: Callable[[], T]) -> T:
    """The stored result of `compute` for equal settings, or else a new one.

    It is stored inside `shared_with_forks` and `shared_within_block` alone, and only where all settings in question
    name code of mlefw: that of a plugin may depend on more than its settings. Warnings of the computation are repeated
    with a stored result.

    Args:
        kind: name of the result.
        config: all settings of the run.
        names: groups of settings that the result depends on; it must depend on nothing else.
        compute: computes the result, which nobody may change afterwards.
    """
    key = _key(kind, config, names)
    if key in _results:
        for one in _results[key].warnings:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return _results[key].value
    # A stream of its own: random generators move alike whether the result is computed or found.
    if not _state["is_open"] or not all(_is_ours(config.get(name)) for name in names):
        with RandomStream(0, kind):
            return compute()
    with RandomStream(0, kind), warnings.catch_warnings(record=True) as met:
        warnings.simplefilter("always")
        value = compute()
    _results[key] = _Result(value, met)
    return value


def _key(kind: str, config: Mapping[str, Any], names: tuple[str, ...]) -> str:
    # Each fold of a cross-validation, and each member of an ensemble, may have other rows.
    parts = {name: config.get(name) for name in (*names, "cv", "ensemble")}
    return f"{kind} {json.dumps(parts, sort_keys=True, default=str)}"


def _is_ours(part: Any) -> bool:
    return not isinstance(part, dict) or str(part.get("_target_", "mlefw.")).startswith(_OURS)
