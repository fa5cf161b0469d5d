"""Stochastic gradient descent as approximate maximum likelihood."""

import math
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from mlefw.errors import UsageError
from mlefw.experiment.base import Experiment
from mlefw.plot import sgd
from mlefw.prior.base import Prior
from mlefw.prior.none import NoPrior
from mlefw.report.findings import Findings, Grid
from mlefw.simulation import descents, sgd_theory
from mlefw.simulation.descents import Race, Settings
from mlefw.simulation.replicates import Replicates, descend, drawn_batches, fit

_PARTS = ("slope", "intercept")


class SgdToMle(Experiment):
    """Full-batch and stochastic gradient descent against the exact estimate, and theory of their difference.

    Args:
        head: bernoulli, gaussian or poisson.
        n: number of rows, x ~ N(0, 1).
        batch_size: rows of a stochastic step, drawn with replacement.
        lr: learning rate.
        iterations: number of steps from zero.
        seed: seed of the rows and draws.
        replicates: number of data sets over which distances are measured.
        batch_sizes: further batch sizes for which distances are compared with theory.
        prior: prior of the slope, that of the run. The comparison with theory is made without a prior only.
    """

    def __init__(
        self,
        head: descents.Kind = "bernoulli",
        n: int = 500,
        batch_size: int = 50,
        lr: float = 1.0,
        iterations: int = 200,
        seed: int = 0,
        replicates: int = 200,
        batch_sizes: list[int] | None = None,
        prior: Prior | None = None,
    ) -> None:
        self.settings = Settings(head, n, batch_size, lr, iterations, seed)
        self.prior = prior or NoPrior()
        self.replicates, self.batch_sizes = replicates, sorted({*(batch_sizes or ()), batch_size})
        if replicates == 1 or replicates < 0 or self.batch_sizes[0] < 1:
            raise UsageError("experiment: expected replicates of 0, or at least 2, and batch_sizes of at least 1")

    def run(self) -> Findings:
        """Descend; and if there is no prior, the MLE exists and the rate is stable, compare with theory."""
        ran = descents.run(self.settings, self.prior)
        grid, values = final_table(ran)
        tables, pictures, verdict = [grid], {"sgd_to_mle": picture(ran)}, headline(ran)
        if self.prior.flat and ran.has_optimum:
            data = one(ran)
            here = sgd_theory.curvature(data, ran.exact.theta)
            values["largest_rate"] = here.largest_rate
            if self.settings.lr < here.largest_rate:
                tables += [self._noise(data, ran, here, pictures, values), self._scales(data, ran, values)]
                verdict += f" {self._judged(here, values)}"
                if self.replicates:
                    tables.append(self._over_data_sets(values))
        s = self.settings
        title = (
            f"{s.kind}, n = {s.num_rows}, batch {s.batch_size}, rate {s.lr:g}, {s.num_steps} iterations, seed {s.seed}"
        )
        return Findings(title, tables, verdict, values, pictures)

    def _noise(
        self,
        data: Replicates,
        ran: Race,
        here: sgd_theory.Curvature,
        pictures: dict[str, Figure],
        values: dict[str, float | None],
    ) -> Grid:
        """A table of stationary chains against theory for each batch size; adds a picture and values."""
        lr, steps = self.settings.lr, 300
        rows: list[list[Any]] = []
        lines: dict[str, Any] = {"measured": [], "theory": [], "averaged": [], "averaged_theory": []}
        for size in self.batch_sizes:
            seen = sgd_theory.rest(data, ran.exact.theta, lr, size, self.settings.seed, num_steps=steps)
            predicted = here.stationary(lr, size)
            assert predicted is not None
            variance, error = seen.variance()
            excess = here.excess(predicted)
            rows.append([size, variance[0], error[0], predicted[0, 0], lr / (2 * size)])
            rows[-1] += [seen.excess[0], seen.excess[1], excess, here.small_rate_excess(lr, size)]
            lines["measured"].append(math.sqrt(variance.sum()))
            lines["theory"].append(math.sqrt(np.trace(predicted)))
            lines["averaged"].append(math.sqrt(np.square(seen.averages).sum(1).mean()))
            lines["averaged_theory"].append(math.sqrt(np.trace(here.averaged(size * steps))))
            if size == self.settings.batch_size:
                values |= {"excess_measured": seen.excess[0], "excess_error": seen.excess[1]}
                values |= {"excess_predicted": excess, "rms_iterates": lines["measured"][-1]}
                values |= {"variance_measured": variance[0], "variance_error": error[0]}
                values |= {"variance_predicted": predicted[0, 0], "rms_averaged": lines["averaged"][-1]}
                values["rms_averaged_predicted"] = lines["averaged_theory"][-1]
                flip = [1, 0]
                cloud = seen.cloud[::15].reshape(-1, len(_PARTS))[:, flip]
                ellipses = predicted[np.ix_(flip, flip)], here.sampling()[np.ix_(flip, flip)]
        title = "SGD stops at a distance that batch size and rate decide, and averaging removes most of it"
        subtitle = (
            f"{self.settings.kind}: 100 chains at rest about the MLE, batch {self.settings.batch_size}, rate {lr:g}"
        )
        pictures["sgd_noise"] = sgd.noise(cloud, *ellipses, self.batch_sizes, title=title, subtitle=subtitle, **lines)
        columns = [
            "batch size",
            "var slope",
            "± se",
            "Lyapunov",
            "lr/2B",
            "excess NLL",
            "± se",
            "½ tr(HS)",
            "lr tr(C)/4B",
        ]
        return Grid(
            f"Iterates at rest about the MLE (100 chains of {steps} steps): measured beside predicted", columns, rows
        )

    def _scales(self, data: Replicates, ran: Race, values: dict[str, float | None]) -> Grid:
        """A table of the gradient noise scale at the start and at the end of the stochastic descent."""
        size = self.settings.batch_size
        rows: list[list[Any]] = []
        for name, point in (("at zero", ran.stochastic.theta[0]), ("after SGD", ran.stochastic.theta[-1])):
            theta = torch.from_numpy(point)
            exact = sgd_theory.curvature(data, theta).noise_scale
            estimate = sgd_theory.estimated_noise_scale(data, theta, (size, 10 * size), self.settings.seed)
            rows.append([name, estimate, exact])
        values["noise_scale_at_zero"], values["noise_scale_at_zero_predicted"] = rows[0][1:]
        title = f"Gradient noise scale: from batches of {size} and {10 * size} rows, and exact"
        return Grid(title, ["", "estimated", "exact tr(C)/|g|²"], rows)

    def _over_data_sets(self, values: dict[str, float | None]) -> Grid:
        """A table of distances between slopes over many data sets."""
        error, predicted = slope_errors(self.settings, self.replicates)
        rms = {name: float(np.sqrt(np.square(found).mean())) for name, found in error.items()}
        rows: list[list[Any]] = []
        theory = {
            "SGD − MLE": predicted,
            "GD − MLE": None,
            "MLE − truth": float(np.sqrt(np.mean(error.pop("variance")))),
        }
        for name, found in error.items():
            size = np.abs(found)
            quantiles = [float(np.quantile(size, q)) for q in (0.05, 0.5, 0.95, 1.0)]
            rows.append([f"|{name}|", float(size.mean()), rms[name], theory[name], *quantiles])
        values |= {"rms_sgd": rms["SGD − MLE"], "rms_sgd_predicted": predicted, "worst_gd": rows[1][-1]}
        columns = ["slope", "mean", "rms", "predicted rms", "5 %", "median", "95 %", "max"]
        return Grid(f"Over {self.replicates} data sets (those that have an MLE)", columns, rows)

    def _judged(self, here: sgd_theory.Curvature, values: dict[str, float | None]) -> str:
        """A sentence that compares the noise of the descent with the sampling error of the data."""
        s = self.settings
        share = s.lr * float(np.trace(here.hessian)) / (2 * s.batch_size) / (len(here.hessian) / s.num_rows)
        where = "below" if share < 1 else "above"
        return (
            f"Its noise costs {values['excess_measured']:.2g} nats a row at rest "
            f"(predicted {values['excess_predicted']:.2g}), {share:.2g} times that of the data: "
            f"{where} the error of the MLE itself."
        )


def one(ran: Race) -> Replicates:
    """The rows of a comparison as one replicate."""
    problem = ran.exact.problem
    return Replicates(problem.head, problem.rows.x.unsqueeze(0), problem.rows.y.unsqueeze(0))


def slope_errors(settings: Settings, count: int) -> tuple[dict[str, np.ndarray], float]:
    """Errors of the slope over `count` data sets by name, and the predicted rms of SGD − MLE.

    `variance` holds the variance of each MLE.
    """
    drawn = [descents.draw(Settings(settings.kind, settings.num_rows, seed=settings.seed + k)) for k in range(count)]
    head = descents.make_head(settings.kind)
    data = Replicates(head, torch.stack([rows.x for rows in drawn]), torch.stack([rows.y for rows in drawn]))
    fits = fit(data)
    data = Replicates(head, data.x[fits.converged], data.y[fits.converged])
    best = fits.theta[fits.converged]
    s, start = settings, data.origin()
    full = descend(data, start, s.lr, s.num_steps)[-1]
    batches = drawn_batches(len(best), s.num_rows, s.batch_size, s.seed)
    sgd_end = descend(data, start, s.lr, s.num_steps, batches)[-1]
    inverse = torch.linalg.inv(data.hessian(best))[:, 0, 0] / s.num_rows
    squares = []
    for k in range(len(best)):
        here = sgd_theory.curvature(Replicates(head, data.x[k : k + 1], data.y[k : k + 1]), best[k])
        covariance = here.stationary(s.lr, s.batch_size)
        squares += [covariance[0, 0]] if covariance is not None else []
    errors = {"SGD − MLE": sgd_end - best, "GD − MLE": full - best, "MLE − truth": best - descents.TRUTHS[s.kind][1]}
    found = {name: error[:, 0].numpy() for name, error in errors.items()} | {"variance": inverse.numpy()}
    return found, float(np.sqrt(np.mean(squares)))


def final_table(ran: Race) -> tuple[Grid, dict[str, float | None]]:
    """A table of the exact estimate and the ends of both descents, and its values by name."""
    name = "MLE" if ran.exact.problem.prior.flat else "MAP"
    if not ran.has_optimum:
        rows: list[list[Any]] = [["GD", *_end(ran.full)], ["SGD", *_end(ran.stochastic)]]
        return Grid(f"No finite {name}: {ran.exact.reason}", ["", "objective", *_PARTS], rows), {}
    theta, best = ran.exact.theta.numpy(), ran.exact.objective
    rows = [[f"exact {name}", best, None, theta[0], None, theta[1], None]]
    values: dict[str, float | None] = {"exact_slope": float(theta[0]), "exact_nll": best}
    for label, path, key in (("full-batch GD", ran.full, "gd"), ("mini-batch SGD", ran.stochastic, "sgd")):
        value, slope, intercept = _end(path)
        rows.append([label, value, value - best, slope, slope - theta[0], intercept, intercept - theta[1]])
        values |= {f"{key}_slope": slope, f"{key}_error": slope - float(theta[0]), f"{key}_excess": value - best}
    columns = ["", "objective", "excess", "slope", "error", "intercept", "error"]
    return Grid("Where the descents end", columns, rows), values


def picture(ran: Race, has_box: bool = True) -> Figure:
    """The picture of objective and slope over iterations; if the rate is too large, also with a smaller rate."""
    name = "MLE" if ran.exact.problem.prior.flat else "MAP"
    s = ran.settings
    curves = [(path.value, path.theta[:, 0]) for path in (ran.full, ran.stochastic)]
    exact = (ran.exact.objective, float(ran.exact.theta[0]))
    subtitle = f"{s.kind}, n = {s.num_rows}, batch {s.batch_size} with replacement, rate {s.lr:g}, from zero"
    found = descents.with_smaller_rate(ran) if ran.has_optimum and ran.diverges else None
    calm = found and ((found[1].value, found[1].theta[:, 0]), f"full-batch GD at rate {found[0]:.2g}")
    return sgd.race(curves[0], curves[1], exact, name, headline(ran), subtitle, calm, has_box)


def headline(ran: Race) -> str:
    """A sentence on where the descents end."""
    name = "MLE" if ran.exact.problem.prior.flat else "MAP"
    if not ran.has_optimum:
        return f"There is no finite {name}: {ran.exact.reason}."
    if ran.diverges:
        return "The rate is too large: the descent diverges."
    best = float(ran.exact.theta[0])
    full, stochastic = (abs(float(path.theta[-1, 0]) - best) for path in (ran.full, ran.stochastic))
    return f"Full-batch GD ends {max(full, 1e-16):.1e} from the exact slope, mini-batch SGD {stochastic:.2g}."


def _end(path: descents.Path) -> tuple[float, float, float]:
    return float(path.value[-1]), float(path.theta[-1, 0]), float(path.theta[-1, 1])
