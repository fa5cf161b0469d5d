"""The NLL of each held-out row of a run, kept beside its summary: two runs on the same rows are compared row by row."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from mlefw.baseline.distance import Decisive, decisive, paired
from mlefw.objective.objective import Evaluation
from mlefw.rows.clustered import Units
from mlefw.rows.rows import Rows
from mlefw.system.atomic import write_atomically

NAME = "row_nll.npz"
"""The file in a run directory."""

OUT_OF_FOLD = "out_of_fold"
"""The split of all rows that train an ensemble of folds, each under the one member that was not trained on it."""

_BLOCK = 2**20
"""Targets that are hashed at a time, since all of them may not fit into memory."""

BASELINE_KEY = "test_baseline_nll_nats"
"""Key in the file of a fold of a cross-validation: the NLL of its test rows under the exact estimate."""


@dataclass(frozen=True)
class RowScores:
    """The NLL of each row of a split.

    Attributes:
        nll: (n,), in nats; where rows have positions, the mean over the observations of the row.
        weight: (n,); where rows have positions, the number of observations of the row.
        rows: a hash by which other runs with these rows are known.
        clustered: whether rows have positions, so that a row is one unit whatever its weight.
        unit: the unit of each row, (n,) int64, over which standard errors are taken; None where each row is one.
    """

    nll: torch.Tensor
    weight: torch.Tensor
    rows: str
    clustered: bool = False
    unit: torch.Tensor | None = None

    def behind(self, best: "RowScores") -> tuple[float, float] | None:
        """Mean NLL minus that of `best` in nats, and the paired standard error; None unless on equal rows.

        The error is over the units of either run, where one of them has units of several rows.
        """
        if self.rows != best.rows:
            return None
        mean, error = paired(self.nll - best.nll, self.weight, self.clustered, self._unit_beside(best))
        return (mean, error) if abs(mean) < float("inf") and error < float("inf") else None

    def decisive(self, best: "RowScores") -> Decisive | None:
        """The few rows that carry nearly all of the difference from `best`; None without any, or on other rows."""
        if self.rows != best.rows:
            return None
        return decisive(self.nll - best.nll, self.weight, self.clustered, self._unit_beside(best))

    def _unit_beside(self, best: "RowScores") -> torch.Tensor | None:
        return best.unit if self.unit is None else self.unit


def averaged(scores: Sequence[RowScores]) -> RowScores | None:
    """The mean NLL of each row over several runs; None unless all are on the same rows."""
    if len({one.rows for one in scores}) != 1:
        return None
    return replace(scores[0], nll=torch.stack([one.nll for one in scores]).mean(0))


def store(
    run_dir: Path,
    evaluations: Mapping[str, Evaluation],
    splits: Mapping[str, Rows],
    labels: Sequence[str] | None,
    baseline: torch.Tensor | None = None,
    units: Mapping[str, Units] | None = None,
) -> None:
    """Write the NLL of each row of the held-out splits, or of the training rows if there are no others.

    Args:
        run_dir: the directory of the run.
        evaluations: with the NLL of each row, by split.
        splits: the rows by split.
        labels: the labels of the target; None for numbers or several targets.
        baseline: NLL of each test row, (n,), under the exact estimate that the model is compared with.
        units: the units of standard errors by split, where they are not the rows.
    """
    arrays: dict[str, np.ndarray] = {} if baseline is None else {BASELINE_KEY: baseline.double().numpy()}
    for split in [name for name in splits if name != "train"] or ["train"]:
        rows, nll = splits[split], evaluations[split].nll
        arrays |= {f"{split}_nll_nats": nll.double().numpy(), f"{split}_rows": np.array(_identity(rows, labels))}
        weight = rows.row_weight
        if not bool((weight == 1).all()):
            arrays[f"{split}_weight"] = weight.double().numpy()
        if rows.positions:
            arrays[f"{split}_positions"] = np.array(rows.positions)
        if units and split in units:
            arrays[f"{split}_unit"] = units[split].of_row.numpy()
    write_atomically(run_dir / NAME, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read(run_dir: Path, split: str) -> RowScores | None:
    """The NLL of each row of a split of a run; None if there is no such file, or not this split in it."""
    try:
        with np.load(run_dir / NAME, allow_pickle=False) as arrays:
            nll = torch.from_numpy(arrays[f"{split}_nll_nats"])
            weight = arrays.get(f"{split}_weight", np.ones(len(nll)))
            rows, clustered = str(arrays[f"{split}_rows"]), f"{split}_positions" in arrays
            unit = torch.from_numpy(arrays[f"{split}_unit"]) if f"{split}_unit" in arrays else None
            return RowScores(nll, torch.from_numpy(weight), rows, clustered, unit)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def baseline_nll(run_dir: Path) -> np.ndarray | None:
    """The NLL of each test row of a fold, (n,), under its exact estimate; None if it is not stored."""
    with suppress(OSError, ValueError, KeyError), np.load(run_dir / NAME, allow_pickle=False) as arrays:
        return np.asarray(arrays[BASELINE_KEY])
    return None


def _identity(rows: Rows, labels: Sequence[str] | None) -> str:
    """A hash of targets and weights, by which runs on the same rows agree, also with other features.

    Labels that are numbers are hashed as numbers: a target read as labels in one run may be numeric in another.
    """
    values = None
    with suppress(ValueError):
        values = None if labels is None else torch.tensor([float(label) for label in labels], dtype=torch.float64)
    shape = (rows.num_rows, *rows.take(slice(0, 1)).y.shape[1:])
    digest = hashlib.sha256(str(shape).encode())
    size = max(1, _BLOCK // max(1, math.prod(shape[1:])))
    for part in rows.blocks(size):
        y = part.y.double() if values is None else values[part.y.long()]
        digest.update(y.contiguous().numpy().data)
    for part in rows.blocks(size):
        digest.update(part.weight.double().contiguous().numpy().data)
    return digest.hexdigest()
