"""Maximum likelihood minimises the Kullback-Leibler divergence, also for a misspecified model."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.plot import divergence
from mlefw.report.findings import Findings, Grid
from mlefw.simulation.replicates import Replicates, fit

TRUE = (0.4, 0.25, 0.15, 0.1, 0.07, 0.03)
"""True probabilities of six outcomes."""

SHARES, CENTERS, SCALES = (0.7, 0.3), (-1.0, 2.0), (0.5, 1.0)
"""Weights, means and standard deviations of a mixture of two Gaussians, to which a Gaussian is fitted."""

MEAN = sum(w * m for w, m in zip(SHARES, CENTERS, strict=True))
SD = math.sqrt(sum(w * (s**2 + (m - MEAN) ** 2) for w, m, s in zip(SHARES, CENTERS, SCALES, strict=True)))
"""Standard deviation of the mixture; the closest Gaussian in KL divergence has its mean and standard deviation."""


class Kl(Experiment):
    """NLL = entropy + KL on six outcomes, and Gaussians fitted to many data sets from a mixture.

    Args:
        replicates: number of data sets of each size.
        sizes: numbers of rows.
        seed: seed of the draws.
    """

    def __init__(self, replicates: int = 400, sizes: list[int] | None = None, seed: int = 0) -> None:
        self.replicates, self.sizes, self.seed = replicates, sizes or [50, 200, 1000, 5000], seed
        if replicates < 2 or min(self.sizes) < 3:
            raise UsageError("experiment: expected replicates of at least 2, and sizes of at least 3")

    def run(self) -> Findings:
        """Run both parts."""
        values: dict[str, float | None] = {}
        finite, bars = self._finite(values)
        table, example = self._misspecified(values)
        predicted = predicted_excess(1)
        verdict = (
            "The NLL is the entropy of the truth plus the KL divergence of the model: only that can be trained away. "
            f"A Gaussian fitted to a mixture goes to mean {MEAN:.3g} and sd {SD:.3g}, the closest in KL; "
            f"its excess falls as {predicted:.3g} / n (1 / n where the model is true)."
        )
        picture = divergence.picture(bars, SHARES, CENTERS, SCALES, (MEAN, SD), example)
        return Findings("Likelihood and KL divergence", [finite, table], verdict, values, {"kl": picture})

    def _finite(self, values: dict[str, float | None]) -> tuple[Grid, list[tuple[str, float, float, float]]]:
        true = torch.tensor(TRUE, dtype=torch.float64)
        head, labels = CategoricalHead(len(TRUE)), torch.arange(len(TRUE))
        drawn = torch.from_numpy(np.random.default_rng(self.seed).choice(len(TRUE), 10_000, p=TRUE))
        models = {
            "truth": true.log(),
            "half way": 0.5 * true.log(),
            "uniform": 0 * true,
            "reversed": true.log().flip(0),
        }
        rows, bars = list[list[Any]](), []
        truth = head(true.log())
        for name, logits in models.items():
            each = head.nll(logits.expand(len(TRUE), -1), labels)
            nll, entropy = float(true @ each), float(truth.entropy())
            gap = float(kl_divergence(truth, head(logits)))
            error = float(each[drawn].std()) / math.sqrt(len(drawn))
            sampled = float(each[drawn].mean())
            rows.append([name, sampled, error, nll, entropy, gap, nll - entropy - gap, math.exp(nll)])
            bars.append((name, entropy, gap, sampled))
            values |= {f"{name}_nll": nll, f"{name}_kl": gap, f"{name}_off": nll - entropy - gap}
            values |= {f"{name}_sampled": sampled, f"{name}_error": error, f"{name}_perplexity": math.exp(nll)}
        columns = ["model", "NLL, 10000 draws", "± se", "expected NLL", "entropy", "KL", "difference", "perplexity"]
        return Grid("Six outcomes: NLL = entropy + KL (nats)", columns, rows), bars

    def _misspecified(self, values: dict[str, float | None]) -> tuple[Grid, tuple[float, float]]:
        rows, example = list[list[Any]](), (0.0, 1.0)
        for size in self.sizes:
            loc, scale = fitted(self.replicates, size, self.seed)
            excess = excess_kl(loc, scale)
            error = float(excess.std(ddof=1)) / math.sqrt(len(excess))
            rows.append([size, float(loc.mean()), float(scale.mean()), float(excess.mean()), error])
            rows[-1] += [predicted_excess(size), 1 / size]
            values |= {f"excess_{size}": float(excess.mean()), f"excess_error_{size}": error}
            values |= {f"excess_predicted_{size}": predicted_excess(size)}
            values |= {f"loc_{size}": float(loc.mean()), f"scale_{size}": float(scale.mean())}
            example = (float(loc[0]), float(scale[0])) if size == self.sizes[0] else example
        title = f"A Gaussian fitted to a mixture of mean {MEAN:.4g} and sd {SD:.4g}: KL above the least, nats"
        columns = [
            "rows",
            "mean of loc",
            "mean of scale",
            "excess KL",
            "± se",
            "½ tr(H⁻¹C) / n",
            "were it true: p / 2n",
        ]
        return Grid(title, columns, rows), example


def fitted(count: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Location and scale of exact Gaussian fits to `count` data sets from the mixture, each (count,)."""
    random = np.random.default_rng((seed, size))
    which = (random.random((count, size)) < SHARES[1]).astype(int)
    y = np.array(CENTERS)[which] + np.array(SCALES)[which] * random.normal(size=(count, size))
    x = torch.zeros(count, size, 0, dtype=torch.float64)
    theta: Tensor = fit(Replicates(GaussianHead(), x, torch.from_numpy(y))).theta
    return theta[:, 0].numpy(), theta[:, 1].exp().numpy()


def excess_kl(loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """KL(mixture, N(loc, scale²)) minus its minimum, in nats, in which the entropy of the mixture cancels."""
    return np.asarray(np.log(scale / SD) + (SD**2 + (loc - MEAN) ** 2) / (2 * scale**2) - 0.5)


def predicted_excess(size: int) -> float:
    """Expected excess KL ½ tr(H⁻¹ C) / n, H = diag(1/σ², 2), C being the covariance of a row's score (White, 1982)."""
    fourth = sum(
        w * (3 * s**4 + 6 * s**2 * (m - MEAN) ** 2 + (m - MEAN) ** 4)
        for w, m, s in zip(SHARES, CENTERS, SCALES, strict=True)
    )
    # The scores are −u / σ and 1 − u², u being standardised: variances 1 / σ² and kurtosis − 1.
    return 0.5 * (1.0 + (fourth / SD**4 - 1) / 2) / size
