"""Robustness of heads to a few outliers."""

import math
from typing import Any

import numpy as np

from mlefw.baseline.base import Solution
from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.head.base import Head
from mlefw.head.gaussian import GaussianHead
from mlefw.head.huber import HuberHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.student_t import StudentTHead
from mlefw.plot import lines
from mlefw.report.findings import Findings, Grid
from mlefw.rows.rows import Rows
from mlefw.simulation.exact_line import as_rows, predicted, solve

INTERCEPT, SLOPE, NOISE = 1.0, 2.0, 0.5


class Robustness(Experiment):
    """Exact fits of a line under four noise models on rows with outliers, evaluated on clean rows.

    Args:
        n: number of rows.
        share: share of outliers.
        shift: distance of the outliers above the line.
        seed: seed of the rows.
    """

    def __init__(self, n: int = 200, share: float = 0.1, shift: float = 12.0, seed: int = 0) -> None:
        if not (n >= 10 and 0 <= share < 0.5):
            raise UsageError(
                f"experiment.n={n}, experiment.share={share}: expected 10 rows or more, and under one half"
            )
        self.n, self.share, self.shift, self.seed = n, share, shift, seed

    def run(self) -> Findings:
        """Compare coefficients, NLL and coverage of the heads."""
        train, clean = self.rows()
        rows, values, drawn_lines = list[list[Any]](), dict[str, float | None](), {}
        for name, head in heads().items():
            solution = solve(head, train)
            slope, intercept = float(solution.theta[0]), float(solution.theta[1])
            seen = judged(solution, clean)
            rows.append([name, intercept, slope, slope - SLOPE, solution.objective, *seen])
            drawn_lines[name] = (intercept, slope)
            values |= {f"{name}_slope": slope, f"{name}_intercept": intercept, f"{name}_clean_nll": seen[0]}
            values |= {f"{name}_coverage": seen[1], f"{name}_train_nll": solution.objective}
        columns = ["head", "intercept", "slope", "error", "NLL, with outliers", "NLL, clean rows", "coverage of 90 %"]
        wrong = f"{self.share:.0%} of {self.n} rows are {self.shift:g} too high"
        title = f"Truth: {INTERCEPT:g} + {SLOPE:g} x, sd {NOISE:g}; {wrong}"
        best = min(heads(), key=lambda name: values[f"{name}_clean_nll"] or math.inf)
        verdict = (
            f"The Gaussian's slope is off by {(values['gaussian_slope'] or 0) - SLOPE:+.2g}, "
            f"that of {best} by {(values[f'{best}_slope'] or 0) - SLOPE:+.2g}: heavy tails make outliers likely, "
            "and so need not bend the line to them; the NLL on clean rows says by how many nats."
        )
        picture = lines.outliers(train.x[:, 0].numpy(), train.y.numpy(), drawn_lines, (INTERCEPT, SLOPE))
        return Findings("A line with outliers", [Grid(title, columns, rows)], verdict, values, {"robustness": picture})

    def rows(self) -> tuple[Rows, Rows]:
        """Training rows with outliers, and ten thousand clean rows."""
        random = np.random.default_rng(self.seed)
        made = []
        for count, wrong in ((self.n, round(self.share * self.n)), (10_000, 0)):
            x = random.uniform(-2, 2, count)
            y = INTERCEPT + SLOPE * x + NOISE * random.normal(size=count)
            y[np.argsort(-x)[: 3 * wrong : 3]] += self.shift
            made.append(as_rows(x, y))
        return made[0], made[1]


def heads() -> dict[str, Head]:
    """The noise models, each with a learnt scale, by name."""
    return {"gaussian": GaussianHead(), "laplace": LaplaceHead(), "huber": HuberHead(), "student_t": StudentTHead()}


def judged(solution: Solution, rows: Rows) -> tuple[float, float]:
    """Mean NLL on rows, and coverage of their 90 % intervals."""
    found = predicted(solution, rows)
    low, high = quantile.interval(found, 0.9)
    inside = ((rows.y >= low) & (rows.y <= high)).double().mean()
    return float(-found.log_prob(rows.y).mean()), float(inside)
