"""The range of each setting of mlefw's own sections, of Lightning's trainer and of torch's optimisers and schedulers.

Classes of mlefw check their arguments themselves when they are built, before anything is written. The ranges here are
those that no class checks, or that a library checks only after training has begun. No other setting may be infinite or
NaN.
"""

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlefw.configuration.bounds import NULL, Range, either, fixed, is_number, is_whole, number, one_of, whole
from mlefw.configuration.trainer_arguments import ARGUMENTS


def _is_encoding(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(codecs.lookup(value))
    except (LookupError, ValueError):
        return False


def _is_sign(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 1 and not value.isalnum()


def _are_weights(value: Any) -> bool:
    return isinstance(value, list) and value != [] and all(is_number(one) and one >= 0 for one in value)


def _is_interval(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def _are_features(value: Any) -> bool:
    """Whether a value is a list of names, null, or the name of a feature map of arrays."""
    if isinstance(value, str):
        return re.fullmatch(r"auto|pixels|last_layer|pca:[1-9]\d{0,5}", value) is not None
    return value is None or (isinstance(value, list) and all(isinstance(name, str) and name for name in value))


_COLUMN = Range(lambda v: isinstance(v, str) and v != "", "the name of a column")
_COLUMNS = Range(
    lambda v: isinstance(v, list) and v != [] and all(map(_COLUMN.holds, v)), "names, such as [price,rent]"
)
_SHARE = either(one_of("predicted", "shared"), number(above=True, below=1.0))
_ROLES = ("offset", "exposure", "weight", "variance_weight", "id", "event", "trials", "group", "time")

RANGES: Mapping[str, Range] = {
    "seed": Range(lambda v: is_whole(v) and 0 <= v < 2**32, f"a whole number from 0 to {2**32 - 1}"),
    **dict.fromkeys(("report", "compile", "exact", "explanation"), one_of(True, False)),
    # In `mlefw evaluate` it is a folder.
    "plots": either(one_of(None, True, False), Range(lambda v: isinstance(v, str), "the name of a folder")),
    "formula": either(NULL, Range(lambda v: isinstance(v, str) and "~" in v, "a formula such as y ~ x + z")),
    **dict.fromkeys(("data.target", "data.cluster"), either(NULL, _COLUMN, _COLUMNS)),
    **dict.fromkeys([f"data.{name}" for name in _ROLES], either(NULL, _COLUMN)),
    "data.x": _COLUMN,
    "data.vocabulary": either(NULL, whole(2)),
    "data.levels": either(NULL, Range(lambda v: is_whole(v) and 2 <= v <= 4096, "a whole number from 2 to 4096")),
    "data.range": either(NULL, Range(_is_interval, "[lowest,highest], such as [0,255]")),
    "data.split": one_of(None, "random", "stratified", "group", "time", "tail", "documents"),
    "data.tokens": one_of("chars", "bytes", "ids"),
    "data.dtype": one_of("uint8", "uint16", "uint32", "int32", "int64"),
    "data.length": whole(1),
    "data.stride": either(NULL, whole(1)),
    "data.bytes_per_token": either(NULL, number(above=True)),
    "data.test_fraction": number(below=1.0),
    "data.validation_fraction": number(below=1.0),
    "data.seed": whole(0),
    "data.draw_seed": whole(0),
    "data.encoding": either(NULL, Range(_is_encoding, "the name of an encoding, such as utf-8 or latin-1")),
    "data.thousands": either(NULL, Range(_is_sign, "one character that is no letter or digit, such as ,")),
    **dict.fromkeys([f"head.{name}" for name in ("inflation", "correlation", "nonzero")], _SHARE),
    "head.zero": one_of("logit", "probit", "cloglog", "loglog", "cauchit"),
    **dict.fromkeys(("head.num_components", "head.bins"), whole(2)),
    "loss.weights": either(one_of("balanced"), Range(_are_weights, "a list of finite numbers of at least 0")),
    "weights": either(one_of("equal", "stacked"), Range(_are_weights, "a list of numbers of at least 0")),
    "uncertainty.seed": whole(0),
    "step.clip_norm": number(),
    "step.replay": one_of(True, False),
    "step.recoveries": whole(0),
    "step.per_chunk": either(one_of("auto"), whole(1)),
    "early_stopping.patience": either(one_of("auto"), NULL, whole(1)),
    "early_stopping.min_delta": number(),
    "checkpoint.min_seconds": number(),
    "checkpoint.every_steps": whole(0),
    "baseline.features": Range(
        _are_features, "a list of text or null, and of arrays also auto, pixels, last_layer or pca:50"
    ),
    **dict.fromkeys(("baseline.max_work", "baseline.max_seconds"), number(above=True)),
    "baseline.lag": either(NULL, whole(0)),
    "baseline.order": either(NULL, whole(1)),
    "baseline.smoothing": either(one_of("unigram"), number(above=True)),
    **{f"trainer.{name}": argument.range for name, argument in ARGUMENTS.items() if argument.range},
    "optimizer.lr": number(),
    "optimizer.betas": Range(
        lambda v: isinstance(v, list | tuple) and len(v) == 2 and all(is_number(b) and 0 <= b < 1 for b in v),
        "two numbers of at least 0 and below 1",
    ),
    "optimizer.eps": number(),
    "optimizer.weight_decay": number(),
    "optimizer.momentum": number(below=1.0),
    "optimizer.dampening": number(below=1.0),
    "optimizer.maximize": fixed(False, "expected false: what is trained is minimised"),
    "optimizer.max_iter": whole(1),
    "optimizer.max_eval": either(NULL, whole(1)),
    "optimizer.tolerance_grad": number(),
    "optimizer.tolerance_change": number(),
    "optimizer.history_size": whole(1),
    "optimizer.line_search_fn": one_of(None, "strong_wolfe"),
    "scheduler.mode": fixed("min", "expected min: what is watched is an NLL, which falls"),
    "scheduler.factor": number(above=True, below=1.0),
    "scheduler.patience": whole(0),
    "scheduler.threshold": number(),
    "scheduler.threshold_mode": one_of("rel", "abs"),
    "scheduler.cooldown": whole(0),
    "scheduler.min_lr": number(),
    "scheduler.eps": number(),
    "scheduler.T_max": whole(1),
    "scheduler.warmup": whole(0),
    "scheduler.eta_min": number(),
    "scheduler.last_epoch": fixed(-1, "expected to be left out: resume= goes on with a run"),
    "level": number(above=True, below=1.0),
    "quantiles": Range(
        lambda v: isinstance(v, list) and all(is_number(p) and 0 < p < 1 for p in v),
        "a list of probabilities above 0 and below 1, such as [0.1,0.5]",
    ),
}

_OURS = ("mlefw.", "torch.", "lightning.")


def problems(config: Mapping[str, Any]) -> list[str]:
    """A message for each setting out of its range; without parts of plugins, whose classes check their arguments."""
    found = []
    for path, value in _leaves("", config):
        known = RANGES.get(path)
        if known is not None and not known.holds(value):
            words = known.words if known.words.startswith("expected") else f"expected {known.words}"
            found.append(f"{path}={shown(value)}: {words}")
        elif known is None and any(map(_is_unbounded, _listed(value))):
            found.append(f"{path}={shown(value)}: expected a finite number, whole ones from -2⁶³ to 2⁶³ - 1")
    return found


def shown(value: Any, limit: int = 80) -> str:
    """A value as it is written on a command line, shortened to `limit` characters."""
    text = {None: "null", True: "true", False: "false"}.get(value) if isinstance(value, bool | None) else None
    text = text or (repr(value) if isinstance(value, str) else str(value) if not _is_long(value) else "a huge number")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _is_unbounded(value: Any) -> bool:
    """Whether a number is infinite, NaN, or an integer beyond 64 bits."""
    if isinstance(value, int):
        return not -(2**63) <= value < 2**63
    return isinstance(value, float) and not math.isfinite(value)


def _is_long(value: Any) -> bool:
    """Whether a whole number may have more digits than Python converts to text (4,300 by default)."""
    return isinstance(value, int) and value.bit_length() > 1000


def _listed(value: Any) -> list[Any]:
    """The items of a list, or a single value in a list."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _leaves(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings by their dotted names; a mapping that has a range itself is one value."""
    if not str(node.get("_target_", "mlefw.")).startswith(_OURS):
        return
    for name, value in node.items():
        full = f"{path}.{name}" if path else str(name)
        if isinstance(value, Mapping) and full not in RANGES:
            yield from _leaves(full, value)
        elif not str(name).startswith("_"):
            yield full, value
