"""mlefw train: train a network, and compare it with the exact estimate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mlefw.baseline.base import Solution
from mlefw.baseline.ngram.estimate import NgramEstimate
from mlefw.command import choose_inputs
from mlefw.configuration.read import as_yaml
from mlefw.configuration.settings import Node, Settings
from mlefw.errors import MlefwError, StorageError, UsageError
from mlefw.report.coefficient_table import baseline_content
from mlefw.report.profile_table import with_profiles
from mlefw.report.tidy import glance
from mlefw.rows.dependence import Dependence
from mlefw.run import checkpoint, conclude, exhibit, fitting, resume
from mlefw.run.directory import claim, locked, summary_of
from mlefw.run.prepare import Prepared, estimate, prepare, start
from mlefw.run.prepare import share as share_estimates
from mlefw.schema.schema import Schema
from mlefw.score.yardstick import ExactEstimates, Yardstick
from mlefw.system import error_origin
from mlefw.system.atomic import Json, temporary_files, write_atomically, write_json, write_text
from mlefw.system.file_system import remove
from mlefw.system.random_state import RandomStream
from mlefw.system.shared_work import compute_once, is_second_request

_YARDSTICK_SECTIONS = ("data", "head", "prior", "loss", "baseline", "inputs", "model", "choices")
"""The sections of the settings on which the exact estimates of a run depend, and its `Yardstick`."""

KEPT = "\n  The best state before that is kept: mlefw evaluate run="
"""What a failure adds to its reason, before the directory of the run, where there is a checkpoint."""


@dataclass(frozen=True)
class Begun:
    """A run whose settings and data are checked, and whose directory is claimed.

    Attributes:
        config: the settings.
        run_dir: the run directory, absolute.
        prepared: its rows and objective.
        card: what each checkpoint holds beside its tensors (see `checkpoint.card`).
    """

    config: Settings
    run_dir: Path
    prepared: Prepared
    card: Json


@dataclass(frozen=True)
class Fitted:
    """A run that is trained, and whose figures are still to be computed.

    Attributes:
        begun: the run.
        yardstick: the exact estimates on its rows.
        baseline: content of `baseline.json`; None where there is none.
        fit: what training has left.
        started: when the run began, in seconds of `time.monotonic`.
        earlier: the summary of a resumed run in which nothing was left to do; else None.
    """

    begun: Begun
    yardstick: Yardstick
    baseline: Json | None
    fit: fitting.Fit
    started: float
    earlier: Json | None = None

    @property
    def value(self) -> float:
        """The NLL of the kept state on the validation rows, in nats per row."""
        return self.fit.keeper.best_value

    def concluded(self) -> Json:
        """Compute the figures and write all files of the run; its summary."""
        if self.earlier is not None:
            return self.earlier
        config, run_dir, prepared = self.begun.config, self.begun.run_dir, self.begun.prepared
        with RandomStream(config.seed, "conclusion"):
            return conclude.conclude(config, run_dir, prepared, self.yardstick, self.baseline, self.fit, self.started)


def run(config: Settings, run_dir: Path) -> Json:
    """Train, and write a run directory; its summary.

    Raises:
        UsageError: a mistake in settings or data; nothing is written then.
        NumericalError, StorageError: during the run, which then leaves a summary with the reason.
    """
    if config.candidates:
        return choose_inputs.run(config, run_dir, fitted)
    with fitted(config, run_dir) as one:
        return one.concluded()


@contextmanager
def fitted(config: Settings, run_dir: Path) -> Iterator[Fitted]:
    """Train a run; within the block its directory stays locked, and its figures may be computed.

    Raises:
        UsageError, NumericalError, StorageError: as `run`.
    """
    if config.resume:
        with _resumed(config.replaced(resume=None), run_dir) as one:
            yield one
        return
    begun = begin(config, run_dir)
    with locked(begun.run_dir), recorded_failure(begun):
        yield _fit(begun)


def begin(config: Settings, run_dir: Path) -> Begun:
    """Prepare a run, and claim its directory.

    Raises:
        UsageError: a mistake in settings or data, or the directory is not free.
    """
    prepared = start(config, prepare(config, run_dir))
    run_dir = claim(run_dir)
    config = config.replaced(run_dir=str(run_dir))
    return Begun(config, run_dir, prepared, _card(config, prepared))


def _card(config: Settings, prepared: Prepared) -> Json:
    return checkpoint.card(config, prepared.data, prepared.estimand.objective.population)


def follow(config: Settings, run_dir: Path) -> None:
    """Train as one of several processes, other than the first; this one writes nothing.

    Raises:
        UsageError, NumericalError: as in the first process.
        LostRankError: another process has ended.
    """
    resumed = bool(config.resume)
    config = config.replaced(resume=None, run_dir=str(run_dir))
    content = resume.read(run_dir, config) if resumed else None
    fitting.follow(config, run_dir, start(config, prepare(config, None)), content)


@contextmanager
def _resumed(config: Settings, run_dir: Path) -> Iterator[Fitted]:
    """Train a run further from its `last.ckpt`; else as `fitted`."""
    with locked(run_dir):
        content = resume.read(run_dir, config)
        prepared = start(config, prepare(config, None))
        begun = Begun(config, run_dir, prepared, _card(config, prepared))
        resume.check_rows(run_dir, content, begun.card, prepared.data, prepared.estimand.objective)
        for file in temporary_files(run_dir):
            remove(file)
        with recorded_failure(begun, is_resumed=True):
            yield _fit(begun, content)


@contextmanager
def recorded_failure(begun: Begun, is_resumed: bool = False) -> Iterator[None]:
    """Write a summary with the reason, and a report, if the block fails; the error goes on.

    A resumed run that is refused (`UsageError`) keeps the summary that it had.
    """
    try:
        yield
    except BaseException as error:
        if is_resumed and isinstance(error, UsageError):
            raise
        reason = str(error_origin.plugin_error(error) or error) or type(error).__name__
        known = summary_of(begun.run_dir)
        # A run that fails in its last part has written the figures of its model already (see `conclude`).
        known = known if known.get("status") == "failed" else {}
        failed = {**known, "status": "failed", "reason": reason, "seed": begun.config.seed}
        kept = begun.run_dir / "checkpoints" / "best.ckpt"
        if isinstance(error, MlefwError) and kept.is_file():
            error.args = (f"{reason}{KEPT}{begun.run_dir}",)
            failed["best"] = str(kept.relative_to(begun.run_dir))
        # On a full disk these files fail as well: the error to report is the first one.
        with suppress(StorageError):
            write_json(begun.run_dir / "summary.json", failed)
            if begun.config.report:
                exhibit.failure(begun.run_dir, str(error) or reason)
        raise


def _fit(begun: Begun, content: Json | None = None) -> Fitted:
    started = time.monotonic()
    yardstick, baseline = measure(begun)
    fit = fitting.fit(begun.config, begun.run_dir, begun.prepared, yardstick, begun.card, content)
    earlier = None if content is None else _finished_summary(begun.run_dir)
    return Fitted(begun, yardstick, baseline, fit, started, earlier)


def measure(begun: Begun) -> tuple[Yardstick, Json | None]:
    """Write the settings and `baseline.json`; the exact estimates on each split, and the content of `baseline.json`."""
    write_text(begun.run_dir / "config.yaml", as_yaml(begun.config.plain))
    yardstick, baseline = _measures(begun.config, begun.prepared)
    if baseline is not None:
        write_baseline(begun.run_dir, baseline, yardstick.exact)
    return yardstick, baseline


def write_baseline(run_dir: Path, content: Json, exact: ExactEstimates) -> None:
    """Write `baseline.json`, and for tables of tokens `baseline.npz` with their counts and priors."""
    write_json(run_dir / "baseline.json", content)
    table = exact.longer or exact.map
    if isinstance(table, NgramEstimate):
        arrays = table.ngram.arrays()
        write_atomically(run_dir / "baseline.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))


def share(config: Settings) -> None:
    """Compute data, exact estimates and yardstick once, for the runs of a process that have them in common.

    Raises:
        UsageError: a mistake in settings or data.
    """
    share_estimates(config)
    if is_second_request("yardstick", config.plain, _YARDSTICK_SECTIONS):
        _measures(config, start(config, prepare(config, None)))


def _measures(config: Settings, prepared: Prepared) -> tuple[Yardstick, Json | None]:
    """The exact estimates on each split, and the content of `baseline.json`."""
    objective, data = prepared.estimand.objective, prepared.data
    exact = estimate(config, prepared)
    make = partial(Yardstick, exact, objective, data.splits, data.units)
    yardstick = compute_once("yardstick", config.plain, _YARDSTICK_SECTIONS, make)
    if not exact.solutions:
        return yardstick, None
    content = compute_once("table", config.plain, _YARDSTICK_SECTIONS, lambda: baseline_file(config, prepared, exact))
    return yardstick, content


def _finished_summary(run_dir: Path) -> Json | None:
    """The summary of a finished run; None if there is none, as after further training, which removes it."""
    summary = summary_of(run_dir)
    return summary if summary.get("status") == "finished" else None


def baseline_file(config: Settings, prepared: Prepared, exact: ExactEstimates) -> Json:
    """The content of `baseline.json`: the MLE, or under a prior the MAP; other estimates are nested under their names.

    `left_out` has the reason of each estimate that was left out, by its name. Where that is the MLE or MAP itself,
    `exists` is null and only the nested estimates are known.
    """
    dependence = replace(prepared.data.dependence, lag=config.baseline.get("lag"))
    contents = {
        name: _content(prepared, solution, config.baseline, exact.null, dependence)
        for name, solution in exact.solutions.items()
    }
    if "ridge" in contents:
        contents["ridge"] = {"scale": config.baseline["ridge_scale"], **contents["ridge"]}
    rows, wanted = prepared.data.train, "mle" if prepared.estimand.objective.prior.flat else "map"
    counts = {"num_rows": rows.num_rows, "population": rows.population}
    top = contents.pop(wanted, {**counts, "exists": None})
    if isinstance(exact.map, NgramEstimate):
        top = {**counts, "null": {"nll_nats": exact.null_nll(rows)}, **top}
    schema = prepared.data.schema
    chosen = {"head": config.choice("head"), "prior": config.choice("prior"), "target": schema.target}
    left_out = {"left_out": dict(exact.left_out)} if exact.left_out else {}
    observation = schema.row_shape.observation
    chosen |= {} if observation == "row" else {"observation": observation}
    whole = {"glance": glance(top)} if "coefficients" in top else {}
    return {**chosen, **top, **whole, **left_out, **contents}


def _content(
    prepared: Prepared,
    solution: Solution | NgramEstimate,
    settings: Node,
    null: Solution,
    dependence: Dependence,
) -> Json:
    """The part of `baseline.json` of one estimate; of arrays it says of which features."""
    if isinstance(solution, NgramEstimate):
        return solution.content()
    schema, features = prepared.data.schema, solution.problem.features
    names, asked = prepared.estimand.named(solution, schema.names)
    terms = schema.terms if isinstance(schema, Schema) else {}
    kind, labels = settings["standard_errors"], schema.all_labels
    content = baseline_content(solution, names, labels, kind, null, asked, terms, dependence)
    if settings.get("intervals") == "profile" and solution.problem.prior.flat:
        content = with_profiles(content, solution, names, labels, kind, settings["max_seconds"])
    return content if features is None else {"features": features.words, **content}
