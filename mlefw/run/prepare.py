"""Preparation of a run: everything that can be checked or computed before a file is written."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from mlefw.baseline.base import Solution
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.baseline.nonexistence import remedy
from mlefw.calibrate.base import Calibration
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Settings, TrainerSettings
from mlefw.distributed import topology
from mlefw.errors import UsageError
from mlefw.model.base import StartsAtEstimate
from mlefw.objective.linear_terms import TermsModel
from mlefw.report.coefficient_table import dropped, shortened
from mlefw.rows.rows import Rows
from mlefw.run import build, explain, lightning_parts, placement
from mlefw.run.build import Data
from mlefw.run.dependence import check_errors
from mlefw.run.directory import check_free
from mlefw.run.estimand import Estimand
from mlefw.run.estimate import NAMES, check_order, estimates
from mlefw.run.network import check_batch_norm
from mlefw.run.trainer import build_datamodule, check_optimization, precision
from mlefw.score import recalibration
from mlefw.score.yardstick import ExactEstimates
from mlefw.system.random_state import RandomStream
from mlefw.system.shared_work import compute_once, has_result
from mlefw.system.warning import warn
from mlefw.testing.plugins import check_plugins
from mlefw.training.datamodule import RowsModule

_EXACT = ("data", "head", "prior", "baseline")
"""The sections of the settings on which the exact estimates depend."""


@dataclass(frozen=True)
class Prepared:
    """A run that is checked and ready to be trained.

    Attributes:
        data: the coded rows with their schema.
        estimand: the objective, its null model and the linear problem.
        rows: the data module, which serves the rows to Lightning.
        num_parameters: number of trainable parameters.
        calibration: the recalibration, to be fitted after training; None for none.
        exact: the exact estimates, where a model has to start at one; else they are computed later.
    """

    data: Data
    estimand: Estimand
    rows: RowsModule
    num_parameters: int
    calibration: Calibration | None = None
    exact: ExactEstimates | None = None


def prepare(config: Settings, run_dir: Path | None) -> Prepared:
    """Read, code, build and check everything that training needs.

    Args:
        config: the settings of the run.
        run_dir: where the run will be written, which has to be free; None where that does not matter.

    Raises:
        UsageError: a mistake in settings or data.
    """
    _check_trainer(config)
    if run_dir is not None:
        check_free(run_dir)
    with RandomStream(config.seed, "preparation"):
        return _prepare(config)


def _prepare(config: Settings) -> Prepared:
    data = build.build_data(config)
    if config.explanation:
        explain.check_schema(data.schema, "explanation=true")
    estimand = build.build_estimand(config, data)
    check_order(build.build_baseline(config.baseline), estimand)
    if config.baseline.get("intervals") == "profile" and not estimand.objective.prior.flat:
        raise UsageError(
            "baseline.intervals=profile is of a likelihood, and intervals under a prior are of its posterior: expected "
            "intervals=wald or prior=none"
        )
    check_errors(config, data.source, data.dependence, data.train)
    check_optimization(config, estimand.objective)
    calibration = build.build_calibration(config.calibrate)
    uncertainty = build.build_uncertainty(config.uncertainty)
    if calibration is not None:
        method = config.choice("calibrate")
        recalibration.check(calibration, method, estimand.objective.head, data.splits, data.source.splitter.rule)
        if uncertainty is not None:
            raise UsageError(
                f"calibrate={method} maps predictions given the fitted parameters, and uncertainty="
                f"{uncertainty.name} averages over the parameters: expected calibrate=none or uncertainty=none"
            )
    if uncertainty is not None:
        if data.train.positions:
            raise UsageError(
                f"uncertainty={uncertainty.name} averages forecasts of rows of one observation, and rows have "
                f"{tuple(data.train.positions)}: expected uncertainty=none"
            )
        uncertainty.check(estimand.objective)
    check_batch_norm(config, estimand.objective.model)
    lightning_parts.check(config, estimand, data)
    rows = build_datamodule(config, data, estimand.objective.head)
    _warn_of_no_epoch(config.trainer.max_steps, rows)
    metrics = build.build_metrics(config, estimand.objective.head, estimand.token_bytes)
    check_plugins(estimand.objective, rows.regime, metrics, data.train)
    count = sum(p.numel() for p in estimand.objective.parameters() if p.requires_grad)
    return Prepared(data, estimand, rows, count, calibration)


def _warn_of_no_epoch(max_steps: int, rows: RowsModule) -> None:
    """Warn of a training that ends before its first evaluation, so that the state before training is kept."""
    num_steps = rows.evaluation_schedule.num_steps(1)
    if "validation" in rows.splits and 0 < max_steps < num_steps:
        warn(
            f"trainer.max_steps={max_steps} ends within the first epoch, of {num_steps} steps: states are evaluated at "
            f"the end of an epoch, so that the one before training is kept. Expected {num_steps} steps or more"
        )


def start(config: Settings, prepared: Prepared) -> Prepared:
    """Start a model of the kind `StartsAtEstimate` at the exact linear estimate; any other is left as it is.

    Raises:
        UsageError: there is no such estimate, with the reason; or `inputs` changes the features.
    """
    objective = prepared.estimand.objective
    if objective.has_terms:
        prepared = _with_scales(config, prepared)
    inner = objective.model.model
    network, inputs = (
        (inner.network, inner.inputs) if isinstance(inner, TermsModel) else (inner, objective.model.inputs)
    )
    if not isinstance(network, StartsAtEstimate):
        return prepared
    model = f"model={config.choice('model')}"
    if inputs is not None:
        raise UsageError(
            f"{model} starts at the exact linear estimate, which is one of the standardised features: expected "
            f"inputs=standard in place of inputs={config.choice('inputs')}, or model=mlp"
        )
    arrays = prepared.estimand.arrays
    if arrays is not None and arrays.is_of_network:
        raise UsageError(
            f"{model} starts at the exact linear estimate, and baseline.features=last_layer is known after training "
            "alone: expected auto, pixels or pca:50"
        )
    exact = _solve(config, prepared.data, prepared.estimand)
    solution = exact.mle if objective.prior.flat else exact.map
    if not isinstance(solution, Solution):
        raise UsageError(f"{model} starts at the exact linear estimate: expected baseline=linear, or model=mlp")
    name = "MLE" if solution is exact.mle else "MAP"
    if not solution.may_exist:
        raise UsageError(
            f"{model} starts at the exact linear {name}, and there is no finite one: {solution.reason}.\n"
            f"  {remedy(solution)}; model=mlp starts without it"
        )
    if not solution.converged:
        prior = "A prior on the weights (prior=l2) may help; " if objective.prior.flat else ""
        raise UsageError(
            f"{model} starts at the exact linear {name}, and none was found (residual {solution.residual:.2g}).\n"
            f"  {prior}model=mlp starts without it"
        )
    placement.start_at(objective, solution)
    return replace(prepared, exact=exact)


def _with_scales(config: Settings, prepared: Prepared) -> Prepared:
    """Give smooth terms and effects of groups the scales that the exact estimate beside the run has found.

    Raises:
        UsageError: there is no such estimate, with the reason.
    """
    exact = _solve(config, prepared.data, prepared.estimand)
    solution = exact.mle
    if not isinstance(solution, Solution) or solution.problem.rho is None:
        absent = None if solution is None else getattr(solution, "reason", None)
        why = exact.left_out.get("mle", absent or "expected baseline=linear")
        raise UsageError(f"the scales of smooth terms and effects of groups come from the exact estimate: {why}")
    precision = replace(solution.problem, active=torch.arange(solution.problem.rows.x.shape[1])).precision
    assert precision is not None
    prepared.estimand.objective.model.model.set_precision(precision)  # type: ignore[operator, union-attr]
    return replace(prepared, exact=exact)


def estimate(config: Settings, prepared: Prepared) -> ExactEstimates:
    """The exact estimates beside the run; a warning for each that is left out, does not exist or is not certified."""
    exact = prepared.exact or _solve(config, prepared.data, prepared.estimand)
    tell(prepared, exact)
    return exact


def tell(prepared: Prepared, exact: ExactEstimates) -> None:
    """Warn of each estimate that is left out or of other features, does not exist, or is not certified."""
    for name, why in {**exact.replaced, **exact.left_out}.items():
        warn(f"{NAMES[name]} left out: {why}")
    if isinstance(exact.mle, Solution):
        left_out = dropped(exact.mle, *prepared.estimand.named(exact.mle, prepared.data.schema.names))
        if left_out:
            warn(f"constant or collinear features are left out of the linear MLE: {shortened(left_out)}")
    flat, word = prepared.estimand.objective.prior.flat, prepared.data.schema.row_shape.observation
    for name, solution in exact.solutions.items():
        if name == "mle" and not flat:
            continue
        if isinstance(solution, NgramEstimate):
            # The table of results says that its MLE has an infimum only, as it does for nearly every text.
            continue
        if not solution.may_exist:
            warn(f"no finite {NAMES[name]}: {solution.reason}. {remedy(solution)}")
        elif not solution.converged:
            warn(f"the {NAMES[name]} is not certified: {_doubt(solution, word)}")


def _doubt(solution: Solution, observation: str) -> str:
    """Why an estimate is not certified."""
    why = f"{solution.reason}, " if solution.reason else ""
    if solution.gap is not None:
        return f"{why}at most {solution.gap:.2g} nats per {observation} above its minimum"
    return f"{why}its residual is {solution.residual:.2g}"


def share(config: Settings) -> None:
    """Compute the data and exact estimates once, for all runs of a process with the same data, head and prior.

    Raises:
        UsageError: a mistake in settings or data.
    """
    if not has_result("exact", config.plain, _EXACT):
        _check_trainer(config)
        data = build.build_data(config)
        _solve(config, data, build.build_estimand(config, data))


def _solve(config: Settings, data: Data, estimand: Estimand) -> ExactEstimates:
    return compute_once("exact", config.plain, _EXACT, lambda: _solve_anew(config, data.train, estimand))


def _solve_anew(config: Settings, train: Rows, estimand: Estimand) -> ExactEstimates:
    baseline = build.build_baseline(config.baseline)
    if baseline is None or (estimand.arrays is not None and estimand.arrays.is_of_network):
        return ExactEstimates(estimand.null)
    return estimates(baseline, estimand, train)


def _check_trainer(config: Settings) -> None:
    """Refuse settings of the trainer that would fail, or mean something else here than in Lightning."""
    trainer = config.trainer
    precision(config)
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs is not None and epochs < 1 and not (epochs == -1 and (steps > 0 or trainer.max_time)):
        raise UsageError(f"trainer.max_epochs={epochs}: expected a whole number of at least 1")
    topology.check(trainer)
    accelerator = trainer.accelerator
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UsageError(f"trainer.accelerator={accelerator}: no GPU was found; expected auto or cpu")
    if accelerator == "mps":
        raise UsageError("trainer.accelerator=mps: it has no 64-bit floats, which the likelihood needs; expected cpu")
    if accelerator not in ("auto", "cpu", "gpu", "cuda"):
        raise UsageError(f"trainer.accelerator={accelerator!r}: expected auto, cpu or gpu")
    _check_lightning(trainer)
    if config.optimizer.get("lr") == 0:
        warn("optimizer.lr=0: nothing will be learnt")


def _check_lightning(trainer: TrainerSettings) -> None:
    compute_once("trainer", {"trainer": trainer.node}, ("trainer",), lambda: _build_trainer(trainer))


def _build_trainer(trainer: TrainerSettings) -> None:
    """Build a trainer once, so that Lightning checks its settings before anything is written."""
    settings = trainer.node | topology.lightning_strategy(trainer) | {"precision": None, "logger": False}
    instantiate("trainer", settings, plugins=[] if topology.is_shared(trainer) else [LightningEnvironment()])
