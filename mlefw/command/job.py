"""Runs one job (train, baseline or check) from a composed configuration; the result is an exit code."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlefw.command.outermost import finish_imports, guarded, take_over_signals
from mlefw.configuration.admission import admitted
from mlefw.configuration.read import located
from mlefw.configuration.settings import Node, Settings
from mlefw.distributed import spawn, topology
from mlefw.errors import MisfitError, MlefwError, UsageError
from mlefw.run.held_out import is_ensemble
from mlefw.system import warning
from mlefw.system.atomic import Json, write_json
from mlefw.system.inert_text import escaped
from mlefw.system.trust import trusted


def run_job(command: str, composed: Node, run_dir: Path, quiet: bool = False, skips_misfits: bool = False) -> int:
    """Run a command with a composed configuration; the exit code.

    A training on several devices runs in processes of its own, each of which calls this function again.

    Args:
        command: `train`, `baseline` or `check`.
        composed: the configuration, in which the run directory is not yet set.
        run_dir: the run directory.
        quiet: whether only one line is printed at the end, as for a job of a sweep.
        skips_misfits: whether a head that does not suit the target is no failure; the summary then says "skipped".
    """
    code = 0

    def task() -> None:
        nonlocal code
        take_over_signals()
        config = located(composed, run_dir)
        count = topology.num_to_start(config.trainer) if command == "train" else 1
        # An ensemble is not spawned: it refuses several devices with a message of its own.
        if count > 1 and not is_ensemble(config):
            code = spawn.run(partial(run_job, command, composed, run_dir, quiet, skips_misfits), count)
            return
        try:
            code = _run(command, config, run_dir, quiet)
        except MisfitError as error:
            if not skips_misfits:
                raise
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_json(run_dir / "summary.json", {"status": "skipped", "reason": str(error)})
        except SystemExit as error:
            raise MlefwError(f"something in the run called sys.exit({error.code!r})") from error

    return guarded(task) or code


def run_alone(command: str, compose: Callable[[], Node], run_dir: Path, skips_misfits: bool = False) -> int:
    """Run a job in a process of its own, such as one of a sweep, with its own collection of warnings; the exit code.

    Args:
        command: as in `run_job`.
        compose: composes the configuration; its errors count as those of the job.
        run_dir: as in `run_job`.
        skips_misfits: as in `run_job`.
    """
    code = 0

    def work() -> None:
        nonlocal code
        warning.clear()
        code = run_job(command, compose(), run_dir, quiet=True, skips_misfits=skips_misfits)

    return guarded(work) or code


def _run(command: str, config: Settings, run_dir: Path, quiet: bool) -> int:
    # Checked again: an interpolation may have become the name of a class since.
    admitted(config.plain, trusted())
    if command == "train":
        return _train(config, run_dir, quiet)
    if command == "baseline":
        from mlefw.command import baseline
        from mlefw.system.terminal import console

        finish_imports()
        content = baseline.run(config, run_dir)
        baseline.show(content, console())
        console().print(f"written: {run_dir / 'baseline.json'}", soft_wrap=True, markup=False)
    else:
        from mlefw.command import check

        finish_imports()
        print(escaped(check.run(config, run_dir)))
    return 0


def _train(config: Settings, run_dir: Path, quiet: bool) -> int:
    if config.experiment:
        if is_ensemble(config):
            raise UsageError("ensemble= and experiment= are both many fits: expected one of them")
        _experiment(config, run_dir, quiet)
        return 0
    if is_ensemble(config):
        from mlefw.command import ensemble

        finish_imports()
        return report(ensemble.run(config, run_dir), run_dir, quiet)
    from mlefw.command import train

    finish_imports()
    if topology.rank(config.trainer) > 0:
        train.follow(config, run_dir)
        return 0
    return report(train.run(config, run_dir), run_dir, quiet)


def report(summary: Json, run_dir: Path, quiet: bool) -> int:
    """Print the results of a run; the exit code: 0, or 5 where some members of an ensemble failed."""
    from mlefw.report.sentences import heading, verdict
    from mlefw.report.tables import run_table
    from mlefw.system.terminal import console

    known = summary.get("ensemble", {})
    code = 5 if known.get("num_finished") != known.get("num_members") else 0
    if quiet:
        print_summary(summary, run_dir)
        return code
    out = console()
    out.print(heading(summary), soft_wrap=True)
    out.print(run_table(summary))
    out.print(verdict(summary), soft_wrap=True)
    out.print(f"run:  {run_dir}\nlook: tensorboard --logdir {run_dir}", soft_wrap=True, markup=False)
    return code


def print_summary(summary: Json, run_dir: Path) -> None:
    """Print the one line of a job that has succeeded."""
    from mlefw.report.observation import nats
    from mlefw.system.number_format import number
    from mlefw.system.terminal import console

    split = "validation" if "validation" in summary["metrics"] else "train"
    value = number(summary["metrics"][split]["nll_nats"])
    console().print(f"{run_dir.name}: NLL {value} {nats(summary)} on {split} rows", soft_wrap=True, markup=False)


def _experiment(config: Settings, run_dir: Path, quiet: bool) -> None:
    from mlefw.command import experiment
    from mlefw.system.terminal import console

    finish_imports()
    findings = experiment.run(config, run_dir)
    if quiet:
        console().print(f"{run_dir.name}: {findings.verdict}", soft_wrap=True, markup=False)
    else:
        experiment.show(findings, run_dir, console())
