"""A member of an ensemble: a run with settings and a directory of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlefw.configuration.read import moved
from mlefw.configuration.settings import Settings
from mlefw.run.directory import MEMBERS


@dataclass(frozen=True)
class Member:
    """A member of an ensemble: its number from 0, its settings and its run directory."""

    number: int
    config: Settings
    run_dir: Path


def member_of(config: Settings, scheme: Any, root: Path, number: int, is_estimated: bool = False) -> Member:
    """A member with its settings; paths into the directory of the ensemble become paths into that of the member.

    Args:
        config: the settings of the ensemble.
        scheme: says how members differ, an `mlefw.ensemble.base.Ensemble`.
        root: the directory in which the folder of members is.
        number: number of the member, from 0.
        is_estimated: whether a member with training rows of its own has no exact estimate, which may take longer than
            its training: there is one for the rows of the ensemble.
    """
    run_dir = root / MEMBERS / str(number)
    plain = moved(scheme.settings(config.plain, number), str(config.run_dir or root), str(run_dir))
    if is_estimated and plain["ensemble"]:
        plain = {**plain, "baseline": {}, "choices": {**plain["choices"], "baseline": "none"}}
    return Member(number, Settings.of({**plain, "run_dir": str(run_dir), "resume": None}), run_dir)
