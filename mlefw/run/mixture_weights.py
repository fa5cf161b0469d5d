"""The weights that runs have in a mixture: given, or by maximum likelihood on rows that none was trained on."""

from collections.abc import Sequence
from pathlib import Path

import torch

from mlefw.errors import UsageError
from mlefw.run import row_scores
from mlefw.score.stacking import stacked
from mlefw.system.local_path import local_path

Weights = str | Sequence[float]
"""`equal`, `stacked`, or a number for each run."""

_SPLITS = (row_scores.OUT_OF_FOLD, "validation")
"""Where a run has the NLL of rows that its networks were not trained on, the best first."""


def weights_of(runs: Sequence[str | Path], weights: Weights) -> list[float] | None:
    """The share of each run in the mixture; None where all networks count alike.

    Args:
        runs: run directories, those of ensembles among them, or checkpoint files.
        weights: `equal`; `stacked` for those with the least NLL on the rows that all runs hold out from training, be
            they validation rows or, of `ensemble=folds`, all training rows, each under the member that did not see it;
            or a number for each run, not negative.

    Raises:
        UsageError: other weights, not one for each run, or runs that do not hold out the same rows.
    """
    if weights == "equal":
        return None
    if len(runs) < 2:
        raise UsageError(f"weights={weights} is for the mixture of several runs: expected run=[a,b,…]")
    if weights == "stacked":
        return _stacked(runs)
    if isinstance(weights, str):
        raise UsageError(f"weights={weights}: expected equal, stacked or a list of numbers")
    known = torch.tensor([float(one) for one in weights], dtype=torch.float64)
    if len(known) != len(runs) or not bool((known >= 0).all() & known.isfinite().all()) or not known.sum() > 0:
        given = ",".join(f"{one:g}" for one in known.tolist())
        raise UsageError(
            f"weights=[{given}]: expected {len(runs)} numbers of at least 0, one for each run, not all of them 0"
        )
    shares: list[float] = (known / known.sum()).tolist()
    return shares


def _stacked(runs: Sequence[str | Path]) -> list[float]:
    folders = [local_path(run, "run") for run in runs]
    for split in _SPLITS:
        scores = [row_scores.read(folder, split) for folder in folders]
        known = [score for score in scores if score is not None]
        if len(known) == len(runs) and len({score.rows for score in known}) == 1:
            found = stacked(torch.stack([score.nll for score in known], 1), known[0].weight)
            weights: list[float] = found.weight.tolist()
            return weights
    names = ",".join(map(str, runs))
    raise UsageError(
        f"weights=stacked finds weights on rows that all of run=[{names}] hold out from training, and these hold "
        "out different rows, or none\n"
        "  expected: directories of runs with the same validation rows (data.seed), or of ensemble=folds on the "
        "same rows; or weights= a list of numbers"
    )
