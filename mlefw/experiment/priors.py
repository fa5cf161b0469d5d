"""Regularisers as negative log-priors: a sparse truth under four priors."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from mlefw.baseline.linear import LinearBaseline
from mlefw.baseline.problem import Problem
from mlefw.batch.full import FullBatch
from mlefw.data.synthetic import Synthetic
from mlefw.experiment.base import Experiment
from mlefw.head.gaussian import GaussianHead
from mlefw.plot import shrinkage
from mlefw.prior.base import Prior
from mlefw.prior.elastic_net import ElasticNetPrior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.report.findings import Findings, Grid
from mlefw.rows.rows import Rows
from mlefw.simulation import descents

TRUTH = (3.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0)


class Priors(Experiment):
    """Coefficients of a Gaussian linear model with known noise, by exact MAP and by training, under each prior.

    Args:
        n: number of rows, x ~ N(0, I).
        noise: standard deviation of the noise.
        l2_scale: scale of the Gaussian prior.
        l1_scale: scale of the Laplace prior.
        elastic_l2_scale: scale of the Gaussian part of the elastic net prior.
        elastic_l1_scale: scale of the Laplace part of the elastic net prior.
        seed: seed of the rows.
    """

    def __init__(
        self,
        n: int = 50,
        noise: float = 0.5,
        l2_scale: float = 0.3,
        l1_scale: float = 0.05,
        elastic_l2_scale: float = 0.3,
        elastic_l1_scale: float = 0.08,
        seed: int = 0,
    ) -> None:
        self.elastic = elastic_l2_scale, elastic_l1_scale
        self.priors: dict[str, Prior] = {
            "none": NoPrior(),
            "l2": L2Prior(l2_scale),
            "l1": L1Prior(l1_scale),
            "elastic net": ElasticNetPrior(*self.elastic),
        }
        self.source = Synthetic(
            num_rows=n, num_features=len(TRUTH), coefficients=list(TRUTH), scale=noise, draw_seed=seed
        )

    def run(self) -> Findings:
        """Compare exact and trained coefficients under each prior, and draw MAP coefficients over the prior scale."""
        problem = self.problem()
        exact, trained, rows = {}, {}, list[list[Any]]()
        values: dict[str, float | None] = {}
        for name, prior in self.priors.items():
            posed = replace(problem, prior=prior)
            solution = LinearBaseline().solve(posed)
            path = descents.descend(posed, FullBatch(), 1 / _largest(posed), 400, 0)
            exact[name], trained[name] = solution.theta.numpy(), path.theta[-1]
            weight = solution.theta[: len(TRUTH)]
            nats = None if prior.flat else float(prior(weight))
            off = float(np.abs(trained[name] - exact[name]).max())
            zeros = [int((found[: len(TRUTH)] == 0).sum()) for found in (exact[name], trained[name])]
            error = float(np.linalg.norm(exact[name][: len(TRUTH)] - TRUTH))
            rows.append([name, problem.mean_nll(solution.theta), nats, solution.objective, *zeros, error, off])
            values |= {f"{name}_zeros": zeros[0], f"{name}_trained_zeros": zeros[1], f"{name}_off": off}
            values |= {f"{name}_error": error, f"{name}_nats": nats, f"{name}_objective": solution.objective}
        coefficients = Grid(
            "Coefficients: truth, and exact MAP under each prior (a 0 is exact)",
            ["", "truth", *self.priors],
            [[f"x{j}", truth, *(_exactly(exact[name][j]) for name in self.priors)] for j, truth in enumerate(TRUTH)],
        )
        columns = ["prior", "NLL", "−log prior, nats", "objective", "zeros, MAP", "zeros, trained"]
        columns += ["distance to truth", "trained − MAP"]
        table = Grid("NLL and objective in nats a row; −log prior of all weights, constants included", columns, rows)
        verdict = (
            f"Under l1 {values['l1_zeros']:.0f} of the 7 absent features have a coefficient of exactly zero, "
            f"by exact MAP and by training alike; l2 shrinks all of them and zeroes none. "
            f"Training ends within {max(values[f'{name}_off'] or 0 for name in self.priors):.0e} of every exact MAP."
        )
        return Findings(
            "A sparse truth under four priors", [coefficients, table], verdict, values, {"priors": self._paths()}
        )

    def problem(self) -> Problem:
        """The problem of a Gaussian head with the known noise, without standardisation and prior."""
        columns = self.source.read().columns
        x = torch.from_numpy(np.column_stack([columns[f"x{j}"] for j in range(len(TRUTH))]))
        y = torch.from_numpy(columns["y"])
        rows = Rows(x, y, torch.ones_like(y), torch.zeros_like(y))
        zero, one = torch.zeros(len(TRUTH), dtype=torch.float64), torch.ones(len(TRUTH), dtype=torch.float64)
        return Problem.of(GaussianHead(scale=self.source.scale), rows, zero, one, NoPrior())

    def _paths(self) -> Figure:
        scales, problem = np.geomspace(1e-3, 3, 41), self.problem()
        share = self.elastic[0] / self.elastic[1]
        families: dict[str, Any] = {
            "l2": L2Prior,
            "l1": L1Prior,
            "elastic net": lambda scale: ElasticNetPrior(share * scale, scale),
        }
        paths = {
            name: np.stack(
                [LinearBaseline().solve(replace(problem, prior=make(s))).theta.numpy()[: len(TRUTH)] for s in scales]
            )
            for name, make in families.items()
        }
        return shrinkage.paths(scales, paths, np.array(TRUTH))


def _largest(problem: Problem) -> float:
    """The largest eigenvalue of the Hessian of the smooth part, whose inverse is a stable learning rate."""
    theta = torch.zeros(problem.size, dtype=torch.float64)
    return float(torch.linalg.eigvalsh(problem.derivatives(theta).hessian)[-1])


def _exactly(value: float) -> float | str:
    return "0" if value == 0 else float(value)
