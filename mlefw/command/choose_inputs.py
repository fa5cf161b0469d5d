"""`inputs=auto`: a run with each candidate, of which the one with the least validation NLL is kept."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from mlefw.configuration.read import as_yaml, moved
from mlefw.configuration.settings import Settings
from mlefw.distributed import topology
from mlefw.errors import NumericalError, UsageError
from mlefw.run.directory import CANDIDATES, claim, locked, summary_of
from mlefw.run.prepare import prepare
from mlefw.system import shared_work, warning
from mlefw.system.atomic import Json, write_json, write_text
from mlefw.system.warning import warn

Train = Callable[[Settings, Path], Json]
"""Trains one run into a directory; its summary."""


def run(config: Settings, run_dir: Path, train: Train) -> Json:
    """Train with each candidate, and let the directory be the run of the best one; its summary.

    The runs of the others are removed; `inputs` in the summary has the validation NLL of all of them.

    Args:
        config: whose `inputs` names candidates; with `resume` set the runs that are there are gone on with.
        run_dir: of the run.
        train: one run.

    Raises:
        UsageError: there are no validation rows to choose by, or several devices.
        NumericalError: no candidate could be trained.
    """
    known = ", ".join(config.candidates)
    if topology.is_ddp(config.trainer):
        raise UsageError(
            f"inputs=auto trains in one process: expected trainer.strategy=auto, or inputs= one of {known}"
        )
    is_resumed, config = bool(config.resume), config.replaced(resume=None)
    with shared_work.sharing():
        check_rows(config, prepare(config, None if is_resumed else run_dir).data.splits)
        run_dir = run_dir if is_resumed else claim(run_dir)
        with locked(run_dir):
            return _run(config.replaced(**moved(config.plain, str(config.run_dir), str(run_dir))), run_dir, train)


def check_rows(config: Settings, splits: Collection[str]) -> None:
    """Refuse to choose by nothing.

    Raises:
        UsageError: there are no validation rows among the splits.
    """
    if "validation" not in splits:
        raise UsageError(
            "inputs=auto chooses by validation rows, and there are none: expected some, or inputs= one of "
            + ", ".join(config.candidates)
        )


def _run(config: Settings, run_dir: Path, train: Train) -> Json:
    write_text(run_dir / "config.yaml", as_yaml(config.plain))
    found, failed = _train_each(config, run_dir, train)
    values = {name: summary["metrics"]["validation"]["nll_nats"] for name, summary in found.items()}
    best = min(values, key=values.__getitem__)
    summary = found[best]
    summary["inputs"] = {**summary["inputs"], "validation_nll_nats": values}
    # Of candidates that failed nothing else is left.
    summary["warnings"] += failed
    _adopt(run_dir, best)
    write_text(run_dir / "config.yaml", as_yaml(_with(config, best, run_dir).plain))
    write_json(run_dir / "summary.json", summary)
    return summary


def _with(config: Settings, name: str, folder: Path) -> Settings:
    """The settings of the run with one of the candidates, in a folder."""
    plain = moved(config.plain, str(config.run_dir), str(folder))
    choices = {**config.choices, "inputs": name}
    return Settings.of({**plain, "inputs": config.candidates[name], "choices": choices})


def _train_each(config: Settings, run_dir: Path, train: Train) -> tuple[dict[str, Json], list[str]]:
    """The summaries of the runs that could be trained, by the names of their candidates; why the others could not."""
    found, failed = dict[str, Json](), list[str]()
    for name in config.candidates:
        folder = run_dir / CANDIDATES / name
        try:
            with warning.apart():
                found[name] = _train(_with(config, name, folder), folder, train)
        except NumericalError as error:
            if name == list(config.candidates)[-1] and not found:
                raise
            failed.append(f"inputs={name} could not be trained: {str(error).splitlines()[0]}")
            warn(failed[-1])
    return found, failed


def _train(config: Settings, folder: Path, train: Train) -> Json:
    if (summary := summary_of(folder)).get("status") == "finished":
        return summary
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return train(config.replaced(resume=str(folder)), folder)
    if folder.exists():
        # It was stopped before its first checkpoint.
        shutil.rmtree(folder)
    return train(config, folder)


def _adopt(run_dir: Path, name: str) -> None:
    """Move the files of a candidate's run to where the run is, and remove what is left of the others."""
    (run_dir / "checkpoints").rmdir()
    for path in sorted((run_dir / CANDIDATES / name).iterdir(), key=lambda path: path.name == "checkpoints"):
        # The checkpoints come last: without them the directory is still one whose candidates are compared.
        path.replace(run_dir / path.name)
    shutil.rmtree(run_dir / CANDIDATES)
