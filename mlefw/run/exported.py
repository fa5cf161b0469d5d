"""A trained model as a function of coded rows: what an exported file computes."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    Laplace,
    LogNormal,
    Normal,
    StudentT,
    Weibull,
)

from mlefw.calibrate.base import CalibratedHead
from mlefw.distribution import quantile
from mlefw.distribution.censored import Censored
from mlefw.distribution.conformal import Conformal, density_of
from mlefw.distribution.histogram import Histogram
from mlefw.distribution.quantiles import Quantiles
from mlefw.distribution.trials import GivenTrials
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.logistic import Logistic
from mlefw.head.loglogistic import LogLogistic
from mlefw.head.quantile import AsymmetricLaplace
from mlefw.head.transformation import TransformationHead
from mlefw.run.checkpoint import Trained

CLOSED = (Laplace, AsymmetricLaplace, Logistic, LogLogistic, Weibull, Exponential, Histogram, Quantiles)
"""Distributions whose quantiles have a closed form in functions that export formats have."""
SCALED: dict[type[Distribution], str | None] = {Normal: None, LogNormal: None, StudentT: "df", Gamma: "dispersion"}
"""Distributions whose quantiles are a unit distribution's, moved and stretched; the parameter that gives its shape."""


class Exported(nn.Module):
    """Maps coded rows to the parameters, the mean and quantiles of the predicted distribution, by name.

    Args:
        trained: the model.
        quantiles: probabilities.
    """

    def __init__(self, trained: Trained, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.objective = deepcopy(trained.objective).eval().requires_grad_(False)
        self.targets, self.quantiles = trained.schema.targets, [float(p) for p in quantiles]
        self.positions = trained.schema.row_shape.positions
        head = self.objective.head
        if isinstance(head, TransformationHead):
            raise UsageError(
                "head=transformation is not exported: its mean is an integral whose ends are found by a search"
                "\n  expected: another head; mlefw predict has its forecasts"
            )
        typical = head(head.center[: head.eta_dim].expand(1, *self.positions, -1))
        typical = typical.given(torch.ones(1, dtype=torch.float64)) if isinstance(typical, GivenTrials) else typical
        marginals = marginals_of(typical)
        self.heads = _parts(head, len(marginals))
        is_class = [isinstance(one, Bernoulli | Categorical) for one in marginals]
        # Conformal quantiles are of one target.
        whole = [typical] if isinstance(typical, Conformal) else marginals
        self.levels = [
            {} if known else levels_of(one, getattr(part, "levels", ()), self.quantiles)
            for part, one, known in zip(self.heads, whole, is_class, strict=True)
        ]
        everything = zip(self.heads, whole, self.levels, strict=True)
        self.units = [unit_quantiles(part, one, list(levels)) for part, one, levels in everything]

    def forward(
        self,
        x: Tensor,
        offset: Tensor | None = None,
        exposure: Tensor | None = None,
        trials: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The outputs by name, each (n, *positions) or (n, *positions, k).

        Args:
            x: coded rows, (n, *input_shape).
            offset: added to the first eta, (n, *positions).
            exposure: whose logarithm is added to it, (n,).
            trials: numbers of trials, (n,).
        """
        added = torch.zeros((x.shape[0], *self.positions), dtype=torch.float64, device=x.device)
        added = added if offset is None else added + offset
        added = added if exposure is None else added + exposure.log()
        head = self.objective.head
        eta = self.objective.eta(x, added)
        predicted = head(eta)
        if trials is not None:
            predicted = predicted.given(trials)
        found = parameters(head, eta, predicted)
        marginals = marginals_of(predicted)
        for index, one in enumerate(marginals):
            prefix = f"{self.targets[index].name}_" if len(marginals) > 1 else ""
            found |= {f"{prefix}{key}": value for key, value in self._figures(index, one).items()}
        return found

    def _figures(self, index: int, one: Distribution) -> dict[str, Tensor]:
        """The mean and quantiles of a number, or the probability of each label."""
        if isinstance(one, Categorical):
            return {"probs": one.probs}
        if isinstance(one, Bernoulli):
            return {"probs": torch.stack([1 - one.probs, one.probs], -1)}
        found = {f"quantile_{p:g}": self._quantile(index, one, p) for p in self.levels[index]}
        return {"mean": one.mean, **found}

    def _quantile(self, index: int, one: Distribution, p: float) -> Tensor:
        unit = self.units[index].get(p)
        if unit is None:
            return quantile.quantile(one, self.levels[index][p])
        if isinstance(one, Gamma):
            return one.mean * unit
        assert isinstance(one, Normal | LogNormal | StudentT)
        found = one.loc + one.scale * unit
        return found.exp() if isinstance(one, LogNormal) else found


def _parts(head: Head, count: int) -> list[Head]:
    """The head of each target, those of a joint head; elsewhere the head itself."""
    trained = head.head if isinstance(head, CalibratedHead) else head
    parts = list(getattr(trained, "parts", ()))
    return parts if len(parts) == count and count > 1 else [trained] * count


def parameters(head: Head, eta: Tensor, predicted: Distribution) -> dict[str, Tensor]:
    """The parameters of the predicted distribution by name, each (n, *positions), and the complete eta they come from.

    Where a recalibration changes the density, they are those after it, and eta, which is before it, is left out.
    """
    if isinstance(head, CalibratedHead) and not head.calibration.changes_density:
        head = head.head
    if isinstance(head, CalibratedHead):
        names = [name for name in ("df", "loc", "scale") if isinstance(predicted, Normal | Laplace | StudentT)]
        return {name: getattr(predicted, name) for name in names if hasattr(predicted, name)}
    complete = head.complete(eta)
    found = {"eta": complete}
    if isinstance(head, FactorizedHead):
        named = head.params(complete).items()
        # Log-odds are a column of eta, or by another link a function of it; the probabilities are among the figures.
        found |= {name: value.expand(complete.shape[:-1]) for name, value in named if name not in ("logits", "mean")}
    return found


def marginals_of(predicted: Distribution) -> list[Distribution]:
    """The distribution of each target; of a censored one that of the number itself, of a conformal one the density."""
    predicted = density_of(predicted)
    if isinstance(predicted, Censored):
        return [predicted.latent]
    return list(getattr(predicted, "marginals", [predicted]))


def levels_of(typical: Distribution, own: Sequence[float], asked: Sequence[float]) -> dict[float, float]:
    """The level at which the density has each quantile that is shown, by the level of the quantile.

    They are the same but for conformal quantiles, which are those of the density at levels that held-out rows give.

    Args:
        typical: the distribution of one row, whichever.
        own: levels of the head; of conformal quantiles those without an end are left out.
        asked: further levels.

    Raises:
        UsageError: a conformal quantile that is asked for has no end.
    """
    if not isinstance(typical, Conformal):
        return {p: p for p in (*own, *asked)}
    mass = {p: typical.mass_beyond(p) for p in (*own, *asked)}
    if endless := [p for p in asked if not mass[p] > 0]:
        raise UsageError(
            f"quantiles={endless}: these conformal quantiles have no finite end, by {typical.num} validation rows: "
            "expected probabilities nearer to 0.5"
        )
    return {p: 1 - beyond if p >= 0.5 else beyond for p, beyond in mass.items() if beyond > 0}


def unit_quantiles(head: Head, whole: Distribution, levels: Sequence[float]) -> dict[float, Tensor]:
    """The quantiles of the unit distribution of one in `SCALED`, scalars by level; none for those of `CLOSED`.

    Args:
        head: the head of the target.
        whole: the distribution of one row, whichever, with conformal quantiles if the forecast has them.
        levels: the probabilities.

    Raises:
        UsageError: the quantiles have no closed form.
    """
    typical = density_of(whole)
    if not levels or isinstance(typical, CLOSED):
        return {}
    shapes = [name for kind, name in SCALED.items() if isinstance(typical, kind)]
    if not shapes or shapes[0] in head.eta_names:
        rest = f" where head.{shapes[0]} is predicted" if shapes else ""
        raise UsageError(
            f"quantiles={list(levels)}: those of {type(head).__name__}{rest} have no closed form, and are not exported"
            "\n  expected: quantiles=[]; mlefw predict has them"
        )
    found = {p: quantile.quantile(whole, p) for p in levels}
    if isinstance(typical, Gamma):
        return {p: (q / typical.mean).reshape(()) for p, q in found.items()}
    assert isinstance(typical, Normal | LogNormal | StudentT)
    moved = {p: q.log() if isinstance(typical, LogNormal) else q for p, q in found.items()}
    return {p: ((q - typical.loc) / typical.scale).reshape(()) for p, q in moved.items()}


def lgamma(x: Tensor) -> Tensor:
    """The logarithm of the gamma function for x > 0, by functions that ONNX has; right to 1e-14 of its size.

    Stirling's series at x + 16, less the logarithms of what is between; no product of them may overflow.
    """
    far = x + 16.0
    between = sum(((x + k).log() for k in range(1, 16)), start=x.log())
    square = far * far
    series = (1 / 12 - (1 / 360 - (1 / 1260 - 1 / (1680 * square)) / square) / square) / far
    return (far - 0.5) * far.log() - far + 0.9189385332046727 + series - between


def solve_triangular(a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """`torch.linalg.solve_triangular` by substitution, row by row, for formats that have no such function.

    Shapes: a (*batch, n, n); b (*batch, n, k), or (*batch, k, n) unless `left` → as b.
    """
    if not left:
        return solve_triangular(a.mT, b.mT, upper=not upper, unitriangular=unitriangular).mT
    size, rows = a.shape[-1], dict[int, Tensor]()
    for k in reversed(range(size)) if upper else range(size):
        row = b[..., k, :]
        for j, known in rows.items():
            row = row - a[..., k, j, None] * known
        rows[k] = row if unitriangular else row / a[..., k, k, None]
    return torch.stack([rows[k] for k in range(size)], -2)
