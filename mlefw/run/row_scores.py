"""The NLL of each held-out row of a run, kept beside its summary: two runs on the same rows are compared row by row."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mlefw.baseline.distance import Decisive, decisive, paired
from mlefw.objective.objective import Evaluation
from mlefw.rows.rows import Rows
from mlefw.system.atomic import write_atomically

NAME = "row_nll.npz"

OUT_OF_FOLD = "out_of_fold"
"""The split of all rows that train an ensemble of folds, each under the one member that was not trained on it."""

BESIDE = "test_baseline_nll_nats"
"""Of the rows that a fold of a cross-validation holds out, what the exact estimate of the fold says."""


@dataclass(frozen=True)
class RowScores:
    """Nats (n,) and weights (n,) of the rows of a split, and what tells these rows from others."""

    nll: torch.Tensor
    weight: torch.Tensor
    rows: str

    def behind(self, best: "RowScores") -> tuple[float, float] | None:
        """Mean NLL minus that of another run on the same rows, and its paired standard error; None on other rows."""
        if self.rows != best.rows:
            return None
        mean, error = paired(self.nll - best.nll, self.weight)
        return (mean, error) if abs(mean) < float("inf") and error < float("inf") else None

    def decisive(self, best: "RowScores") -> Decisive | None:
        """The few rows that carry nearly all of that difference; None on other rows, or where no few do."""
        return decisive(self.nll - best.nll, self.weight) if self.rows == best.rows else None


def store(
    run_dir: Path,
    evaluations: Mapping[str, Evaluation],
    splits: Mapping[str, Rows],
    labels: Sequence[str] | None,
    beside: torch.Tensor | None = None,
) -> None:
    """Write those of the held-out splits, or of the training rows where there are no others.

    `beside`: the NLL of each test row, (n,), under the exact estimate that the model is compared with.
    """
    arrays: dict[str, np.ndarray] = {} if beside is None else {BESIDE: beside.double().numpy()}
    for split in [name for name in splits if name != "train"] or ["train"]:
        rows, nll = splits[split], evaluations[split].nll
        arrays |= {f"{split}_nll_nats": nll.double().numpy(), f"{split}_rows": np.array(_identity(rows, labels))}
        if not bool((rows.weight == 1).all()):
            arrays[f"{split}_weight"] = rows.weight.double().numpy()
    write_atomically(run_dir / NAME, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read(run_dir: Path, split: str) -> RowScores | None:
    """Those of a run on a split; None where it has none that can be read."""
    try:
        with np.load(run_dir / NAME, allow_pickle=False) as arrays:
            nll = torch.from_numpy(arrays[f"{split}_nll_nats"])
            weight = arrays.get(f"{split}_weight", np.ones(len(nll)))
            return RowScores(nll, torch.from_numpy(weight), str(arrays[f"{split}_rows"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def beside(run_dir: Path) -> np.ndarray | None:
    """The NLL of each test row, (n,), under the exact estimate of a fold; None where there is none."""
    with suppress(OSError, ValueError, KeyError), np.load(run_dir / NAME, allow_pickle=False) as arrays:
        return np.asarray(arrays[BESIDE])
    return None


def _identity(rows: Rows, labels: Sequence[str] | None) -> str:
    """A hash of targets and weights: runs on other features, or with labels for numbers, may have the same rows."""
    y = rows.y.double()
    if labels is not None:
        with suppress(ValueError):
            y = torch.tensor([float(label) for label in labels], dtype=torch.float64)[rows.y.long()]
    digest = hashlib.sha256(str(tuple(y.shape)).encode())
    for column in (y, rows.weight.double()):
        digest.update(column.contiguous().numpy().data)
    return digest.hexdigest()
