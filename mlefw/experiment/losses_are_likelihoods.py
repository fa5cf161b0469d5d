"""The usual losses are negative log-likelihoods, up to a constant and a factor."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.plot import losses
from mlefw.report.findings import Findings, Grid


@dataclass(frozen=True)
class Pair:
    """A loss of torch and the head with loss = ratio · NLL − ratio · constant in each row.

    Loss and NLL are compared at `eta` (n, eta_dim) and `y` (n,); `constant` may depend on y.
    """

    name: str
    formula: str
    head: Head
    loss: Callable[[Tensor, Tensor], Tensor]
    ratio: float
    constant: Tensor
    eta: Tensor
    y: Tensor


class LossesAreLikelihoods(Experiment):
    """MSE, MAE, Huber, BCE, cross-entropy and Poisson loss compared with the NLL of their heads.

    Args:
        sigma: standard deviation of the Gaussian, and scale of the Huber density.
        b: scale of the Laplace density.
        delta: residual at which the Huber density becomes exponential, in units of sigma.
        n: number of random inputs.
        seed: seed of the inputs.
    """

    def __init__(self, sigma: float = 0.7, b: float = 1.3, delta: float = 1.345, n: int = 10000, seed: int = 0) -> None:
        for name, value in (("sigma", sigma), ("b", b), ("delta", delta), ("n", n)):
            if not 0 < value < math.inf:
                raise UsageError(f"experiment.{name}={value}: expected a positive number")
        self.sigma, self.b, self.delta, self.n, self.seed = sigma, b, delta, n, seed

    def run(self) -> Findings:
        """Compare values and gradients of losses and NLLs."""
        rows, values = list[list[Any]](), dict[str, float | None]()
        for pair in self.pairs():
            off, low, high = compared(pair)
            rows.append([pair.name, type(pair.head).__name__, pair.formula, f"{off:.1e}", low, high, pair.ratio])
            key = pair.name.lower().replace(" ", "_")
            values |= {f"{key}_off": off, f"{key}_ratio_low": low, f"{key}_ratio_high": high}
        columns = ["loss", "head", "NLL =", "largest deviation", "least grad ratio", "largest", "predicted"]
        table = Grid("Loss against NLL, row by row (grad ratio: that of the loss over that of the NLL)", columns, rows)
        stirling = self._stirling()
        other = Grid(
            "PoissonNLLLoss(full=True) adds Stirling's approximation to log y!: no likelihood",
            ["count", "its NLL minus the exact one"],
            [[str(y), float(stirling[y])] for y in (0, 1, 2, 3, 5, 10, 20)],
        )
        worst = max(value or 0.0 for name, value in values.items() if name.endswith("_off"))
        values["stirling_error"] = float(stirling.abs().max())
        verdict = (
            f"Every loss is the NLL of its head times its ratio, up to its constant (within {worst:.0e}). "
            "Minimising MSE is maximum likelihood whatever σ one takes: σ sets the size of its gradient alone."
        )
        return Findings("Losses are likelihoods", [table, other], verdict, values, {"losses": self._picture()})

    def pairs(self) -> list[Pair]:
        """The losses with their heads, on random inputs."""
        random = np.random.default_rng(self.seed)
        eta = torch.from_numpy(3 * random.normal(size=(self.n, 1)))
        real = torch.from_numpy(3 * random.normal(size=self.n))
        binary = torch.from_numpy(random.integers(0, 2, self.n).astype(float))
        logits, label = (
            torch.from_numpy(3 * random.normal(size=(self.n, 4))),
            torch.from_numpy(random.integers(0, 4, self.n)),
        )
        count = torch.from_numpy(random.poisson(3, self.n).astype(float))
        sigma, b, turn = self.sigma, self.b, self.delta * self.sigma
        gaussian = _number(0.5 * math.log(2 * math.pi) + math.log(sigma))
        inner = math.sqrt(2 * math.pi) * math.erf(self.delta / math.sqrt(2))
        huber = _number(math.log(sigma * (inner + 2 / self.delta * math.exp(-0.5 * self.delta**2))))
        none = _number(0.0)
        return [
            Pair("MSE", "loss / 2σ² + ½ log 2πσ²", GaussianHead(scale=sigma), _mse, 2 * sigma**2, gaussian, eta, real),
            Pair("MAE", "loss / b + log 2b", LaplaceHead(scale=b), _mae, b, _number(math.log(2 * b)), eta, real),
            Pair(
                "Huber",
                "loss / σ² + log σZ(δ)",
                HuberHead(scale=sigma, delta=self.delta),
                lambda e, y: functional.huber_loss(e[:, 0], y, delta=turn, reduction="none"),
                sigma**2,
                huber,
                eta,
                real,
            ),
            Pair("BCE", "loss", BernoulliHead(), _bce, 1.0, none, eta, binary),
            Pair("Cross-entropy", "loss", CategoricalHead(4), _cross_entropy, 1.0, none, logits, label),
            Pair("Poisson", "loss + log y!", PoissonHead(), _poisson, 1.0, torch.lgamma(count + 1), eta, count),
        ]

    def _stirling(self) -> Tensor:
        y = torch.arange(21, dtype=torch.float64)
        eta = y.clamp(min=0.5).log().unsqueeze(1)
        full = functional.poisson_nll_loss(eta[:, 0], y, full=True, reduction="none")
        return full - PoissonHead().nll(eta, y)

    def _picture(self) -> Figure:
        residual = torch.linspace(-4, 4, 401, dtype=torch.float64)
        zero = torch.zeros(len(residual), 1, dtype=torch.float64)
        lines = {}
        for pair in self.pairs()[:3]:
            nll = pair.head.nll(zero, residual)
            lines[pair.name] = (nll.numpy(), (pair.loss(zero, residual) / pair.ratio).numpy())
        return losses.losses(residual.numpy(), lines)


def compared(pair: Pair) -> tuple[float, float, float]:
    """Largest |NLL − (loss / ratio + constant)| over rows, and least and largest ratio of the gradients in eta."""
    eta = pair.eta.clone().requires_grad_()
    nll, loss = pair.head.nll(eta, pair.y), pair.loss(eta, pair.y)
    (slope,) = torch.autograd.grad(nll.sum(), eta)
    (pull,) = torch.autograd.grad(loss.sum(), eta)
    seen = slope.abs() > 1e-6
    ratios = pull[seen] / slope[seen]
    off = (nll - loss / pair.ratio - pair.constant).detach().abs().max()
    return float(off), float(ratios.min()), float(ratios.max())


def _number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _mse(eta: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(eta[:, 0], y, reduction="none")


def _mae(eta: Tensor, y: Tensor) -> Tensor:
    return functional.l1_loss(eta[:, 0], y, reduction="none")


def _bce(eta: Tensor, y: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(eta[:, 0], y, reduction="none")


def _cross_entropy(eta: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(eta, y, reduction="none")


def _poisson(eta: Tensor, y: Tensor) -> Tensor:
    return functional.poisson_nll_loss(eta[:, 0], y, log_input=True, reduction="none")
