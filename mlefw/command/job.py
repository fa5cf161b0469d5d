"""One job: from a composed configuration to an exit code."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from mlefw.command.outermost import guarded, imported, listen
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
    """Run train, baseline or check with a configuration that is composed but for its run directory; the exit code.

    A training on several devices runs in processes of its own, each of which comes here again.

    Args:
        command: the one to run.
        composed: its configuration.
        run_dir: where it is written.
        quiet: whether one line tells how it ended.
        skips_misfits: whether a head that is not for the target is no failure; the summary then says "skipped".
    """
    code = 0

    def task() -> None:
        nonlocal code
        listen()
        config = located(composed, run_dir)
        count = topology.num_to_start(config.trainer) if command == "train" else 1
        # An ensemble refuses several devices itself.
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
            raise MlefwError(f"the run was left by sys.exit({error.code!r})") from error

    return guarded(task) or code


def run_alone(command: str, compose: Callable[[], Node], run_dir: Path, skips_misfits: bool = False) -> int:
    """Run a job that has its process to itself, as those of a sweep do, with warnings of its own; the exit code.

    Args:
        command: as in `run_job`.
        compose: its configuration, in which a mistake is the job's own.
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
    # What an interpolation has become is looked at once more, wherever the settings came from.
    admitted(config.plain, trusted())
    if command == "train":
        return _train(config, run_dir, quiet)
    if command == "baseline":
        from mlefw.command import baseline
        from mlefw.system.terminal import console

        imported()
        content = baseline.run(config, run_dir)
        baseline.show(content, console())
        console().print(f"written: {run_dir / 'baseline.json'}", soft_wrap=True, markup=False)
    else:
        from mlefw.command import check

        imported()
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

        imported()
        return report(ensemble.run(config, run_dir), run_dir, quiet)
    from mlefw.command import train

    imported()
    if topology.rank(config.trainer) > 0:
        train.follow(config, run_dir)
        return 0
    return report(train.run(config, run_dir), run_dir, quiet)


def report(summary: Json, run_dir: Path, quiet: bool) -> int:
    """Print what a run has found; the exit code: 5 where some members of an ensemble are missing."""
    from mlefw.report.sentences import heading, verdict
    from mlefw.report.tables import run_table
    from mlefw.system.terminal import console

    known = summary.get("ensemble", {})
    code = 5 if known.get("num_finished") != known.get("num_members") else 0
    if quiet:
        say(summary, run_dir)
        return code
    out = console()
    out.print(heading(summary), soft_wrap=True)
    out.print(run_table(summary))
    out.print(verdict(summary), soft_wrap=True)
    out.print(f"run:  {run_dir}\nlook: tensorboard --logdir {run_dir}", soft_wrap=True, markup=False)
    return code


def say(summary: Json, run_dir: Path) -> None:
    """Print the line of a job that has ended well."""
    from mlefw.system.number_format import number
    from mlefw.system.terminal import console

    split = "validation" if "validation" in summary["metrics"] else "train"
    nats = number(summary["metrics"][split]["nll_nats"])
    console().print(f"{run_dir.name}: NLL {nats} nats per row on {split} rows", soft_wrap=True, markup=False)


def _experiment(config: Settings, run_dir: Path, quiet: bool) -> None:
    from mlefw.command import experiment
    from mlefw.system.terminal import console

    imported()
    findings = experiment.run(config, run_dir)
    if quiet:
        console().print(f"{run_dir.name}: {findings.verdict}", soft_wrap=True, markup=False)
    else:
        experiment.show(findings, run_dir, console())
