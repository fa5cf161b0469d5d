"""The text for which `reference.json` states closed forms, where these lie beside the checkout."""

import json
import lzma
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

NAMES = ("train", "validation", "test")


def text() -> str:
    """The text, which comes with the package."""
    raw = resources.files("mlefw.data").joinpath("tinyshakespeare.txt.xz").read_bytes()
    return lzma.decompress(raw).decode()


def folder() -> Path:
    """The folder of the reference values; skips the test where there is none."""
    for parent in Path(__file__).resolve().parents:
        found = parent / "shared" / "data" / "tensors"
        if (found / "reference.json").is_file():
            return found
    pytest.skip("shared/data/tensors is not here")


@cache
def reference() -> dict[str, Any]:
    """The reference values."""
    return json.loads((folder() / "reference.json").read_text())


@cache
def codes() -> dict[str, np.ndarray]:
    """The text by split, each character as its place among all 65, straight from the bytes."""
    raw = np.frombuffer(text().encode(), np.uint8)
    code = np.unique(raw, return_inverse=True)[1]
    held = round(0.1 * len(raw))
    return dict(zip(NAMES, np.split(code, [len(raw) - 2 * held, len(raw) - held]), strict=True))
