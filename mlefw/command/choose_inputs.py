"""mlefw train inputs=auto: trains with each candidate, and keeps the run with the least validation NLL."""

import shutil
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from mlefw.configuration.read import as_yaml, moved
from mlefw.configuration.settings import Settings
from mlefw.distributed import topology
from mlefw.errors import NumericalError, UsageError
from mlefw.run.directory import CANDIDATES, claim, locked, summary_of
from mlefw.run.essentials import CHOSEN_BY
from mlefw.run.prepare import prepare
from mlefw.system import shared_work, warning
from mlefw.system.atomic import Json, write_json, write_text
from mlefw.system.warning import warn

_CHOSEN = ".chosen"
"""The folder of the chosen run, among those of the candidates, until its files are moved to the run directory."""


class Candidate(Protocol):
    """A run that is trained, and whose figures are still to be computed."""

    @property
    def value(self) -> float:
        """The NLL on the validation rows, in nats per row."""

    def concluded(self) -> Json:
        """Compute the figures and write all files of the run; its summary."""


Train = Callable[[Settings, Path], AbstractContextManager[Candidate]]
"""Trains one run into a directory, which is locked while the block runs."""


def run(config: Settings, run_dir: Path, trained: Train) -> Json:
    """Train with each candidate, and make the best run the one in `run_dir`; its summary.

    The other runs are removed; `inputs` in the summary has the validation NLL of each candidate.

    Args:
        config: the settings, with `inputs` naming candidates; with `resume` the candidates' runs are resumed.
        run_dir: the directory of the run.
        trained: trains one run.

    Raises:
        UsageError: there are no validation rows, or there are several devices.
        NumericalError: no candidate could be trained.
    """
    known = ", ".join(config.candidates)
    if topology.is_shared(config.trainer):
        raise UsageError(
            f"inputs=auto trains in one process: expected trainer.strategy=auto, or inputs= one of {known}"
        )
    is_resumed, config = bool(config.resume), config.replaced(resume=None)
    with shared_work.shared_within_block():
        check_rows(config, prepare(config, None if is_resumed else run_dir).data.splits)
        run_dir = run_dir if is_resumed else claim(run_dir)
        with locked(run_dir):
            return _run(config.replaced(**moved(config.plain, str(config.run_dir), str(run_dir))), run_dir, trained)


def check_rows(config: Settings, splits: Collection[str]) -> None:
    """Refuse `inputs=auto` without validation rows.

    Raises:
        UsageError: `validation` is not among the splits.
    """
    if "validation" not in splits:
        raise UsageError(
            "inputs=auto chooses by validation rows, and there are none: expected some, or inputs= one of "
            + ", ".join(config.candidates)
        )


def _run(config: Settings, run_dir: Path, trained: Train) -> Json:
    write_text(run_dir / "config.yaml", as_yaml(config.plain))
    # It is there where an earlier process was stopped between the choice and the moving of files.
    if not (run_dir / CANDIDATES / _CHOSEN).is_dir():
        _choose(config, run_dir, trained)
    _adopt(run_dir)
    return summary_of(run_dir)


def _choose(config: Settings, run_dir: Path, trained: Train) -> None:
    """Train with each candidate, compute the figures of the best one, and rename its folder to `_CHOSEN`."""
    found, failed = dict[str, tuple[Candidate, list[str]]](), list[str]()
    with ExitStack() as held:
        for name in config.candidates:
            folder, said = run_dir / CANDIDATES / name, list[str]()
            try:
                with warning.separate_run(said):
                    settings = _with_resume(_candidate_settings(config, name, folder))
                    found[name] = held.enter_context(trained(settings, folder)), said
            except NumericalError as error:
                if name == list(config.candidates)[-1] and not found:
                    raise
                failed.append(f"inputs={name} could not be trained: {str(error).splitlines()[0]}")
                warn(failed[-1])
        values = {name: one.value for name, (one, _) in found.items()}
        best = min(values, key=values.__getitem__)
        one, said = found[best]
        with warning.separate_run(said):
            summary = one.concluded()
    folder = run_dir / CANDIDATES / best
    summary["inputs"] = {"method": best, **summary.get("inputs", {}), CHOSEN_BY: values}
    # The folders of candidates that failed will be removed: this warning is what is left of them.
    summary["warnings"] += failed
    write_json(folder / "summary.json", summary)
    write_text(folder / "config.yaml", as_yaml(_candidate_settings(config, best, run_dir).plain))
    folder.rename(folder.with_name(_CHOSEN))


def with_inputs(config: Settings, name: str) -> Settings:
    """The settings with the candidate `name` as the input map."""
    return config.replaced(inputs=config.candidates[name], choices={**config.choices, "inputs": name})


def _candidate_settings(config: Settings, name: str, folder: Path) -> Settings:
    """The settings of a candidate's run in a folder of its own."""
    return Settings.of(moved(with_inputs(config, name).plain, str(config.run_dir), str(folder)))


def _with_resume(config: Settings) -> Settings:
    """The settings of a candidate's run: to resume from a checkpoint in its folder, if there is one."""
    folder = Path(str(config.run_dir))
    if (folder / "checkpoints" / "last.ckpt").is_file():
        return config.replaced(resume=str(folder))
    if folder.exists():
        # It was stopped before its first checkpoint.
        shutil.rmtree(folder)
    return config


def _adopt(run_dir: Path) -> None:
    """Move the files of the chosen run to the run directory, and remove the other candidates."""
    files = list((run_dir / CANDIDATES / _CHOSEN).iterdir())
    # `checkpoints` and `config.yaml` last: a process that is stopped before leaves a directory that can be resumed as
    # one with candidates.
    for path in sorted(files, key=lambda path: (path.name == "config.yaml", path.name == "checkpoints")):
        if path.name == "checkpoints" and (run_dir / "checkpoints").is_dir():
            (run_dir / "checkpoints").rmdir()
        path.replace(run_dir / path.name)
    shutil.rmtree(run_dir / CANDIDATES)
