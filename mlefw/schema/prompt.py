"""Turns a prompt, the beginning of a text to be gone on with, into tokens of a model."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlefw.errors import UsageError
from mlefw.schema.tokens import TokenSchema

_MOST_SHOWN = 5


def prompt_tokens(schema: TokenSchema, prompt: Any) -> np.ndarray:
    """The tokens of a prompt, (m,) int64.

    Args:
        schema: what tokens are.
        prompt: str; of bytes also bytes; of ids also whole numbers, a sequence or an array (m,), or their text, such as
            `5,17,3`.

    Raises:
        UsageError: it is none of these, or holds what the training text does not; with the first places.
    """
    symbols = _ids(prompt) if schema.tokens == "ids" else _symbols(schema, prompt)
    if schema.tokens == "ids":
        lacking, tokens = (symbols < 0) | (symbols >= schema.num_tokens), symbols
    else:
        alphabet = np.array(schema.alphabet, dtype=np.int64)
        tokens = np.searchsorted(alphabet, symbols).clip(max=len(alphabet) - 1)
        lacking = alphabet[tokens] != symbols
    if lacking.any():
        raise _unknown(schema, symbols, lacking)
    return tokens


def _symbols(schema: TokenSchema, prompt: Any) -> np.ndarray:
    """The code points or bytes of a prompt, (m,) int64."""
    if schema.tokens == "bytes":
        if isinstance(prompt, str):
            # Bytes of a command line that are no UTF-8 are surrogates in Python's strings.
            prompt = prompt.encode("utf-8", "surrogateescape")
        if isinstance(prompt, bytes):
            return np.frombuffer(prompt, np.uint8).astype(np.int64)
    elif isinstance(prompt, str):
        return np.array([ord(one) for one in prompt], dtype=np.int64)
    expected = "text" if schema.tokens == "chars" else "text or bytes"
    raise UsageError(f"prompt={prompt!r} is a {type(prompt).__name__}: expected {expected}")


def _ids(prompt: Any) -> np.ndarray:
    words: Any = re.split(r"[\s,]+", prompt.strip("[] \n")) if isinstance(prompt, str) else prompt
    words = [] if isinstance(prompt, str) and words == [""] else words
    try:
        is_whole = isinstance(words, Sequence | np.ndarray) and all(int(word) == float(word) for word in words)
        found = np.array([int(word) for word in words], dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        is_whole = False
    if not is_whole:
        raise UsageError(f"prompt={prompt!r}: the model takes ids: expected whole numbers, such as prompt=5,17,3")
    return found


def _unknown(schema: TokenSchema, symbols: np.ndarray, lacking: np.ndarray) -> UsageError:
    places = np.flatnonzero(lacking)
    words = {"chars": "characters", "bytes": "bytes", "ids": "ids"}
    each = [(_shown(schema, int(symbols[place])), place) for place in places[:_MOST_SHOWN]]
    shown = ", ".join(f"{symbol} at position {place}" for symbol, place in each)
    more = f" and {len(places) - _MOST_SHOWN} more" if len(places) > _MOST_SHOWN else ""
    ids = schema.tokens == "ids"
    whose = f"that are not 0 … {schema.num_tokens - 1}" if ids else "that the training text does not hold"
    expected = "ids of the vocabulary" if ids else f"some of its {schema.num_tokens} {words[schema.tokens]}"
    return UsageError(
        f"prompt holds {words[schema.tokens]} {whose}: {shown}{more} (counted from 0)\n  expected: {expected}"
    )


def _shown(schema: TokenSchema, symbol: int) -> str:
    if schema.tokens == "ids":
        return str(symbol)
    return ascii(chr(symbol)) if schema.tokens == "chars" else f"0x{symbol:02X}"
