"""What the suites of interrupted runs share: a run that is stopped, and how two runs are compared to the last bit."""

import csv
import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.cli import run

QUIET = ("logger=none", "report=false", "plots=false", "checkpoint.min_seconds=0")

TEXT = (
    *("data=text", "data.path=text.txt", "data.length=8", "model.width=8", "model.layers=1", "model.heads=2"),
    *("model.dropout=0.1", "scheduler.warmup=5", "batch.size=16", "trainer.max_epochs=3"),
)
"""A transformer on the text of `write_text`: 81 windows of 8 characters or 82, by the place at which they begin."""


def write_text(folder: Path) -> None:
    """A text of 800 characters, each of which is one of 11 that depend on the one before."""
    random, letters, found = np.random.default_rng(0), "etaoin shr\n", [0]
    for draw in random.integers(0, 4, 799):
        found.append(int(found[-1] * 3 + draw) % len(letters))
    (folder / "text.txt").write_text("".join(letters[one] for one in found), encoding="utf-8")


def stopping_after(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Let the process get a signal as soon as a training has taken so many steps."""
    original = KeepCheckpoints.on_train_batch_end

    def on_train_batch_end(self: KeepCheckpoints, trainer: Any, *args: Any) -> None:
        if trainer.global_step >= step:
            monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", original)
            os.kill(os.getpid(), number)
        original(self, trainer, *args)

    monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", on_train_batch_end)


def assert_same_run(one: Path, other: Path) -> None:
    """Everything that training leaves is the same to the last bit; only what depends on the clock is left out."""
    last = [_content(folder / "checkpoints" / "last.ckpt") for folder in (one, other)]
    assert_same(*({key: c[key] for key in ("state_dict", "optimizer_states", "lr_schedulers", "resume")} for c in last))
    states = [{key: value for key, value in c["callbacks"].items() if "Timer" not in key} for c in last]
    assert_same(*states)
    best = [_content(folder / "checkpoints" / "best.ckpt")["state_dict"] for folder in (one, other)]
    assert_same(*best)
    logs = []
    for folder in (one, other):
        with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
            logs.append([{k: v for k, v in row.items() if k != "rows_per_s"} for row in csv.DictReader(file)])
    assert logs[0] == logs[1]
    summaries = [json.loads((folder / "summary.json").read_text(encoding="utf-8")) for folder in (one, other)]
    assert_same(*({key: value for key, value in s.items() if key != "time"} for s in summaries))


def assert_same(one: Any, other: Any, name: str = "") -> None:
    """Nested containers of tensors and plain values are equal, bit for bit."""
    assert type(one) is type(other), name
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype, name
        assert one.shape == other.shape, name
        assert one.detach().numpy().tobytes() == other.detach().numpy().tobytes(), name
    elif isinstance(one, dict):
        assert list(one) == list(other), name
        for key, value in one.items():
            assert_same(value, other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), name
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{name}[{index}]")
    else:
        assert repr(one) == repr(other), name


def train(*arguments: str) -> int:
    """`mlefw train` in this process, under the warning filters of a process of its own; its exit code."""
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore")
        return run(["train", *arguments])


def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content
