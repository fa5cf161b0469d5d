"""mlefw train: fit a network, and say how far it is from the exact estimate."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mlefw.command import choose_inputs
from mlefw.configuration.read import as_yaml
from mlefw.configuration.settings import Settings
from mlefw.errors import MlefwError, StorageError, UsageError
from mlefw.report.coefficient_table import baseline_content
from mlefw.run import checkpoint, conclude, exhibit, fitting, resume
from mlefw.run.directory import claim, locked, summary_of
from mlefw.run.prepare import Prepared, estimate, prepare, start
from mlefw.run.prepare import share as share_estimates
from mlefw.score.yardstick import ExactEstimates, Yardstick
from mlefw.system import error_origin
from mlefw.system.atomic import Json, temporary_files, write_json, write_text
from mlefw.system.file_system import remove
from mlefw.system.random_state import RandomStream
from mlefw.system.shared_work import compute_once, is_second_request

_PARTS = ("data", "head", "prior", "loss", "baseline", "inputs", "model", "choices")
"""Of a configuration: what the yardstick of a run depends on."""


@dataclass(frozen=True)
class Begun:
    """A run whose settings and data are checked, and whose directory is its own."""

    config: Settings
    run_dir: Path
    prepared: Prepared
    card: Json


@dataclass(frozen=True)
class Fitted:
    """A run whose network is trained, and of which all figures are still to be computed."""

    begun: Begun
    yardstick: Yardstick
    baseline: Json | None
    fit: fitting.Fit
    started: float
    earlier: Json | None = None
    """The summary of a resumed run where nothing was left to do."""

    @property
    def value(self) -> float:
        """The NLL of the kept state on the validation rows, in nats per row."""
        return self.fit.keeper.best_value

    def concluded(self) -> Json:
        """Compute and write all figures; the summary."""
        if self.earlier is not None:
            return self.earlier
        config, run_dir, prepared = self.begun.config, self.begun.run_dir, self.begun.prepared
        with RandomStream(config.seed, "conclusion"):
            return conclude.conclude(config, run_dir, prepared, self.yardstick, self.baseline, self.fit, self.started)


def run(config: Settings, run_dir: Path) -> Json:
    """Train, and write a run directory; its summary.

    Raises:
        UsageError: before anything is written.
        NumericalError, StorageError: during the run, which then leaves a summary that says so.
    """
    if config.candidates:
        return choose_inputs.run(config, run_dir, fitted)
    with fitted(config, run_dir) as one:
        return one.concluded()


@contextmanager
def fitted(config: Settings, run_dir: Path) -> Iterator[Fitted]:
    """Train, and hold the run directory while the block runs, in which the run may be concluded.

    Raises:
        UsageError, NumericalError, StorageError: as `run`.
    """
    if config.resume:
        with _resumed(config.replaced(resume=None), run_dir) as one:
            yield one
        return
    begun = begin(config, run_dir)
    with locked(begun.run_dir), telling(begun):
        yield _fit(begun)


def begin(config: Settings, run_dir: Path) -> Begun:
    """Check all that can be checked, and take the directory.

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
    """Take part in the training of a run whose first process writes; this one writes nothing.

    Raises:
        UsageError, NumericalError: as in the first.
        LostRankError: another process has ended.
    """
    resumed = bool(config.resume)
    config = config.replaced(resume=None, run_dir=str(run_dir))
    content = resume.read(run_dir, config) if resumed else None
    fitting.follow(config, run_dir, start(config, prepare(config, None)), content)


@contextmanager
def _resumed(config: Settings, run_dir: Path) -> Iterator[Fitted]:
    """Go on from `last.ckpt`."""
    with locked(run_dir):
        content = resume.read(run_dir, config)
        prepared = start(config, prepare(config, None))
        begun = Begun(config, run_dir, prepared, _card(config, prepared))
        resume.check_rows(run_dir, content, begun.card, prepared.data, prepared.estimand.objective)
        for file in temporary_files(run_dir):
            remove(file)
        with telling(begun, is_resumed=True):
            yield _fit(begun, content)


@contextmanager
def telling(begun: Begun, is_resumed: bool = False) -> Iterator[None]:
    """Let a failure inside the block leave a summary that says so.

    A resumed run that is refused is left with the summary that it had.
    """
    try:
        yield
    except BaseException as error:
        if is_resumed and isinstance(error, UsageError):
            raise
        reason = str(error_origin.plugin_error(error) or error) or type(error).__name__
        known = summary_of(begun.run_dir)
        # A run that fails at its very end has the figures of its model there already.
        known = known if known.get("status") == "failed" else {}
        failed = {**known, "status": "failed", "reason": reason, "seed": begun.config.seed}
        kept = begun.run_dir / "checkpoints" / "best.ckpt"
        if isinstance(error, MlefwError) and kept.is_file():
            # What was reached before is whole, and no less good for what came after.
            error.args = (f"{reason}\n  The best state before that is kept: mlefw evaluate run={begun.run_dir}",)
            failed["best"] = str(kept.relative_to(begun.run_dir))
        # A full disk takes these files, too; what is to be told is the first failure.
        with suppress(StorageError):
            write_json(begun.run_dir / "summary.json", failed)
            if begun.config.report:
                exhibit.failure(begun.run_dir, str(error) or reason)
        raise


def _fit(begun: Begun, content: Json | None = None) -> Fitted:
    started = time.monotonic()
    yardstick, baseline = measure(begun)
    fit = fitting.fit(begun.config, begun.run_dir, begun.prepared, yardstick, begun.card, content)
    earlier = None if content is None else _finished(begun.run_dir)
    return Fitted(begun, yardstick, baseline, fit, started, earlier)


def measure(begun: Begun) -> tuple[Yardstick, Json | None]:
    """Write the settings and the exact estimate; what each epoch is measured by, and the content of `baseline.json`."""
    write_text(begun.run_dir / "config.yaml", as_yaml(begun.config.plain))
    yardstick, baseline = _measures(begun.config, begun.prepared)
    if baseline is not None:
        write_json(begun.run_dir / "baseline.json", baseline)
    return yardstick, baseline


def share(config: Settings) -> None:
    """Do what runs with the same data and exact estimates have in common; what one run alone needs it does itself.

    Raises:
        UsageError: a mistake in settings or data.
    """
    share_estimates(config)
    if is_second_request("yardstick", config.plain, _PARTS):
        _measures(config, start(config, prepare(config, None)))


def _measures(config: Settings, prepared: Prepared) -> tuple[Yardstick, Json | None]:
    objective, splits = prepared.estimand.objective, prepared.data.splits
    exact = estimate(config, prepared)
    yardstick = compute_once("yardstick", config.plain, _PARTS, lambda: Yardstick(exact, objective, splits))
    if not exact.solutions:
        return yardstick, None
    return yardstick, compute_once("table", config.plain, _PARTS, lambda: baseline_file(config, prepared, exact))


def _finished(run_dir: Path) -> Json | None:
    """The summary of a finished run, which is removed as soon as its training goes on; None where there is none."""
    summary = summary_of(run_dir)
    return summary if summary.get("status") == "finished" else None


def baseline_file(config: Settings, prepared: Prepared, exact: ExactEstimates) -> Json:
    """The content of `baseline.json`: under a prior the MAP, with the MLE and a ridge MAP nested where they are.

    An estimate that was left out has its reason in `left_out`, under its name; of the one that was asked for `exists`
    is then null, and the others are what is known.
    """
    schema, asked = prepared.data.schema, prepared.estimand.asked
    kind = config.baseline["standard_errors"]
    contents = {
        name: baseline_content(solution, schema.names, schema.all_labels, kind, exact.null, asked)
        for name, solution in exact.solutions.items()
    }
    if "ridge" in contents:
        contents["ridge"] = {"scale": config.baseline["ridge_scale"], **contents["ridge"]}
    rows, wanted = prepared.data.train, "mle" if prepared.estimand.objective.prior.flat else "map"
    missing = {"num_rows": rows.num_rows, "population": rows.population, "exists": None}
    top = contents.pop(wanted, missing)
    chosen = {"head": config.choice("head"), "prior": config.choice("prior"), "target": schema.target}
    left_out = {"left_out": dict(exact.left_out)} if exact.left_out else {}
    return {**chosen, **top, **left_out, **contents}
