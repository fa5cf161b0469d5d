"""One job: from a composed configuration to an exit code."""

import gc
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mlefw.configuration.admission import admitted
from mlefw.distributed import spawn, topology
from mlefw.errors import MisfitError, MlefwError, Stopped, UsageError, is_out_of_memory
from mlefw.system import origin, warning
from mlefw.system.atomic import write_json
from mlefw.system.inert_text import shown
from mlefw.system.signals import handled
from mlefw.system.trust import trusted

Task = Callable[[], None]

_LONGEST = 10_000
"""Characters of an error, which may list many settings."""

_NO_MEMORY = "out of memory: a smaller batch (batch=mini batch.size=…) or batch.max_rows needs less"


def guarded(task: Task) -> int:
    """Run a task; its exit code. Errors become a few lines on standard error."""
    try:
        with handled():
            task()
    except (Exception, KeyboardInterrupt, Stopped) as error:  # noqa: BLE001 - the outermost frame
        return told(error)
    return 0


def told(error: BaseException) -> int:
    """Say what went wrong in a few lines on standard error; the exit code for it."""
    if isinstance(error, Stopped) or (isinstance(error, MlefwError) and error.exit_code != MlefwError.exit_code):
        where = origin.place(error) if isinstance(error, UsageError) else ""
        return _fail(f"{error}\n  {where}" if where and where not in str(error) else str(error), error.exit_code)
    if isinstance(error, KeyboardInterrupt):
        return _fail("stopped by SIGINT", 130)
    if isinstance(error, BrokenPipeError):
        # The reader went away (`| head -1`): the work is done, and its result is on disk.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if is_out_of_memory(error):
        return _fail(_NO_MEMORY, 6)
    if (of_plugin := origin.of_plugin(error)) is not None:
        return _fail(str(of_plugin), of_plugin.exit_code)
    if isinstance(error, MlefwError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, OSError):
        return _fail(f"storage: {error}", 4)
    # Whatever is left is a bug, and says so.
    return _fail(f"unexpected {type(error).__name__}: {error}\n  This is a bug; MLEFW_TRACEBACK=1 shows where", 70)


def _fail(message: str, code: int) -> int:
    if os.environ.get("MLEFW_TRACEBACK") == "1":
        traceback.print_exc()
    print(f"mlefw: error: {shown(warning.shortened(message, _LONGEST))}", file=sys.stderr)
    return code


def run_job(command: str, config: dict[str, Any], run_dir: Path, quiet: bool = False) -> int:
    """Run train, baseline or check with a configuration that is composed but for its run directory.

    A training on several devices runs in processes of its own, each of which comes here again.
    In a sweep over heads one that is not for the target is skipped, which its summary says.
    """
    code = 0

    def task() -> None:
        nonlocal code
        count = topology.to_start(config["trainer"]) if command == "train" else 1
        if count > 1:
            code = spawn.run(partial(run_job, command, config, run_dir, quiet), count)
            return
        try:
            _run(command, config, run_dir, quiet)
        except MisfitError as error:
            if not (quiet and "head" in os.environ.get("MLEFW_SWEPT", "").split(",")):
                raise
            run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_json(run_dir / "summary.json", {"status": "skipped", "reason": str(error)})
        except SystemExit as error:
            raise MlefwError(f"the run was left by sys.exit({error.code!r})") from error

    return guarded(task) or code


def _run(command: str, config: dict[str, Any], run_dir: Path, quiet: bool) -> None:
    from mlefw.configuration.read import located

    listen()
    config = located(config, run_dir)
    # What an interpolation has become is looked at once more, wherever the settings came from.
    admitted(config, trusted())
    if command == "train":
        _train(config, run_dir, quiet)
    elif command == "baseline":
        from mlefw.command import baseline
        from mlefw.system.terminal import console

        imported()
        content = baseline.run(config, run_dir)
        baseline.show(content, console())
        console().print(f"written: {run_dir / 'baseline.json'}", soft_wrap=True, markup=False)
    else:
        from mlefw.command import check

        imported()
        print(shown(check.run(config, run_dir)))


def _train(config: dict[str, Any], run_dir: Path, quiet: bool) -> None:
    if config.get("experiment"):
        _experiment(config, run_dir, quiet)
        return
    from mlefw.command import train
    from mlefw.report.sentences import heading, verdict
    from mlefw.report.tables import run_table
    from mlefw.system.terminal import console

    imported()
    if topology.number(config["trainer"]) > 0:
        train.follow(config, run_dir)
        return
    summary = train.run(config, run_dir)
    if quiet:
        say(summary, run_dir)
        return
    out = console()
    out.print(heading(summary), soft_wrap=True)
    out.print(run_table(summary))
    out.print(verdict(summary), soft_wrap=True)
    out.print(f"run:  {run_dir}\nlook: tensorboard --logdir {run_dir}", soft_wrap=True, markup=False)


def say(summary: dict[str, Any], run_dir: Path) -> None:
    """Print the line of a job that has ended well."""
    from mlefw.system.number_format import number
    from mlefw.system.terminal import console

    split = "validation" if "validation" in summary["metrics"] else "train"
    nats = number(summary["metrics"][split]["nll_nats"])
    console().print(f"{run_dir.name}: NLL {nats} nats per row on {split} rows", soft_wrap=True, markup=False)


def _experiment(config: dict[str, Any], run_dir: Path, quiet: bool) -> None:
    from mlefw.command import experiment
    from mlefw.system.terminal import console

    imported()
    findings = experiment.run(config, run_dir)
    if quiet:
        console().print(f"{run_dir.name}: {findings.verdict}", soft_wrap=True, markup=False)
    else:
        experiment.show(findings, run_dir, console())


def imported() -> None:
    """After the last import: Lightning's has turned its messages on again, and what is there now stays for good."""
    listen()
    gc.freeze()
    gc.enable()


def listen() -> None:
    """Show warnings of mlefw as one line each, collect them for the summary, and keep other people's chatter off."""

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
        ours = issubclass(category, UserWarning) and f"{os.sep}mlefw{os.sep}" in filename
        if ours and warning.collect(text := warning.shortened(str(message))):
            print(f"mlefw: warning: {shown(text)}", file=sys.stderr)

    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show  # type: ignore[assignment]
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "lightning_utilities"):
        logging.getLogger(name).setLevel(logging.ERROR)
