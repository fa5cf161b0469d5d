"""The passages of a text that a model forecasts worst, as lines of text: tokens, their NLL, and what was forecast."""

import unicodedata
from typing import NamedTuple

import numpy as np
import torch

from mlefw.report.hardest import Hardest, View
from mlefw.schema.kinds import RowSchema
from mlefw.schema.tokens import TokenSchema
from mlefw.system.number_format import percent

_WIDTH = 80
"""Most columns of a line of tokens."""

_VISIBLE = {"\n": "↵", "\t": "→", "\r": "␍", " ": " "}
"""What stands for characters that would move the place of others, or would not be seen."""

_WORDS = {"chars": "character", "bytes": "byte", "ids": "id"}


class _Cell(NamedTuple):
    """What is shown of one token: the token, its NLL, and the likeliest token in its place."""

    token: str
    nats: str
    likeliest: str


def show(hard: Hardest, schema: RowSchema) -> str:
    """The passages, the hardest first: three lines that stand above each other, and are broken where they are long."""
    assert isinstance(schema, TokenSchema)
    word, count = _WORDS[schema.tokens], len(hard.index)
    what = "training" if hard.split == "train" else hard.split
    share = "" if hard.share is None else f", which carry {percent(hard.share)} of the NLL"
    lines = [
        f"The {count} hardest of {hard.num_rows:,} {what} passages{share}; passages are counted from 0.",
        f"text: each {word}; nats: its NLL, rounded down{_scale(schema)}; forecast: the likeliest {word} there.",
        "A dot below the text: not scored, context alone.",
    ]
    if schema.tokens != "ids":
        lines.append("↵ stands for a line end, → for a tab, ␣ for a blank in a forecast, ␦ for what cannot be shown.")
    for number, index in enumerate(hard.index.tolist()):
        size = int((hard.rows.weight[number] > 0).sum())
        lines += ["", f"{number + 1}. passage {index}: {float(hard.mean[number]):.3g} nats per {word} over {size}"]
        lines += _lines(_cells(hard, number, schema))
    return "\n".join(lines)


def _scale(schema: TokenSchema) -> str:
    return "" if schema.tokens == "ids" else " (+ for 10 or more)"


def _cells(hard: Hardest, number: int, schema: TokenSchema) -> list[_Cell]:
    """The tokens of a passage, up to the last one that is scored."""
    rows, probs = hard.rows, getattr(hard.distribution, "probs", None)
    scored = (rows.weight[number] > 0).cpu().numpy()
    tokens = np.concatenate([rows.x[number, :1].long().cpu().numpy(), rows.y[number].long().cpu().numpy()])
    best = None if not isinstance(probs, torch.Tensor) else probs[number].argmax(-1).cpu().numpy()
    nll = hard.nll[number].double().cpu().numpy()
    cells = [_Cell(_visible(schema, int(tokens[0])), "·", "·")]
    for k in range(int(np.flatnonzero(scored).max()) + 1):
        token = _visible(schema, int(tokens[k + 1]))
        likeliest = "?" if best is None else _visible(schema, int(best[k])).replace(" ", "␣")
        cells.append(_Cell(token, _digits(nll[k], schema), likeliest) if scored[k] else _Cell(token, "·", "·"))
    return cells


def _digits(nats: float, schema: TokenSchema) -> str:
    if not np.isfinite(nats):
        return "∞"
    if schema.tokens == "ids":
        return str(int(nats))
    return str(int(nats)) if nats < 10 else "+"


def _visible(schema: TokenSchema, token: int) -> str:
    """A token in as few columns as possible, and always in one or more."""
    if schema.tokens == "ids":
        return str(token)
    symbol = schema.alphabet[token]
    if schema.tokens == "bytes" and symbol >= 0x7F:
        return f"{symbol:02X}"
    character = chr(symbol)
    if character in _VISIBLE:
        return _VISIBLE[character]
    # Marks that join with what is before them, and characters without a width, would shift the lines.
    return "␦" if unicodedata.category(character)[0] in "CMZ" else character


def _columns(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text)


def _lines(cells: list[_Cell]) -> list[str]:
    """Lines of cells below each other, as many to a line as fit; between cells of several columns are blanks."""
    gap = " " if any(len(part) > 1 for cell in cells for part in cell) else ""
    found: list[str] = []
    rest = [(cell, max(_columns(part) for part in cell)) for cell in cells]
    while rest:
        taken, width = 0, 0
        while taken < len(rest) and (taken == 0 or width + rest[taken][1] + len(gap) <= _WIDTH):
            width += rest[taken][1] + len(gap)
            taken += 1
        found += [""] if found else []
        for name, part in zip(("text", "nats", "forecast"), range(3), strict=True):
            shown = gap.join(cell[part] + " " * (size - _columns(cell[part])) for cell, size in rest[:taken])
            found.append(f"  {name:<10}{shown}".rstrip())
        rest = rest[taken:]
    return found


VIEW = View("hardest", "Hardest passages", 10, lambda schema: isinstance(schema, TokenSchema), show)
