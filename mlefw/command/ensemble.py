"""mlefw train ensemble=…: several networks in one run directory, and the mixture of what they predict."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlefw.command import train
from mlefw.command.train import Begun
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.read import moved
from mlefw.configuration.settings import Settings
from mlefw.distributed import topology
from mlefw.errors import MlefwError, NumericalError, UsageError
from mlefw.model.base import StartsAtEstimate
from mlefw.run import ensemble
from mlefw.run.directory import MEMBERS, check_free, locked
from mlefw.run.prepare import prepare, start
from mlefw.system import shared_work, warning
from mlefw.system.atomic import Json, write_json
from mlefw.system.own_folder import own
from mlefw.system.warning import warn

FAILED = 5
"""Exit code where a member failed and the others are mixed."""


@dataclass(frozen=True)
class Member:
    """A run of an ensemble, which has its directory to itself."""

    number: int
    config: Settings
    run_dir: Path


Train = Callable[[Sequence[Member]], dict[int, str]]
"""Trains members, each to its own end; of those that failed the reason, by number."""


def run(config: Settings, root: Path, trained: Train | None = None, is_resumed: bool = False) -> Json:
    """Train the members, and write the summary of their mixture; its content.

    Args:
        config: of the whole.
        root: the directory of the whole; each member has its own below.
        trained: trains the members; by default one after the other, in this process.
        is_resumed: whether the directory is there already.

    Raises:
        UsageError: a mistake in settings or data, before anything is written.
        NumericalError: no member was trained to its end.
    """
    started = time.monotonic()
    scheme: Any = instantiate("ensemble", config.ensemble)
    _check(config)
    with ExitStack() as held:
        if shared_work.is_little(config.plain):
            held.enter_context(shared_work.sharing())
        # What recalibrates or averages over parameters does so in each member.
        whole = Settings.of(scheme.whole(config.plain)).replaced(calibrate={}, uncertainty={})
        if not is_resumed:
            check_free(root)
        prepared = start(whole, prepare(whole, None))
        if scheme.members > (count := prepared.data.train.num_rows):
            raise UsageError(f"ensemble.members={scheme.members}: there are {count} training rows to train them on")
        root = root.absolute()
        estimated = not isinstance(prepared.estimand.objective.model.model, StartsAtEstimate)
        members = [member_of(config, scheme, root, number, estimated) for number in range(scheme.members)]
        prepare(members[0].config, None)
        (root / MEMBERS).mkdir(mode=0o755, parents=True, exist_ok=True)
        own(root)
        with locked(root):
            begun = Begun(config, root, prepared, {})
            with train.telling(begun):
                yardstick, baseline = train.measure(begun)
                failed = (trained or one_by_one)(members)
                if len(failed) == len(members):
                    raise NumericalError(f"no member of the ensemble was trained: {failed[0]}")
                for number, reason in failed.items():
                    warn(f"member {number} of the ensemble failed, and is not in the mixture: {reason}")
                return ensemble.conclude(config, root, prepared, yardstick, baseline, failed, started)


def member_of(config: Settings, scheme: Any, root: Path, number: int, is_estimated: bool = False) -> Member:
    """A member with its settings; paths into the directory of the whole are paths into its own.

    Where the whole `is_estimated`, a member with rows of its own has no exact estimate, which may take longer than its
    training.
    """
    run_dir = root / MEMBERS / str(number)
    plain = moved(scheme.settings(config.plain, number), str(config.run_dir or root), str(run_dir))
    if is_estimated and plain["ensemble"]:
        plain = {**plain, "baseline": {}, "choices": {**plain["choices"], "baseline": "none"}}
    return Member(number, Settings.of({**plain, "run_dir": str(run_dir), "resume": None}), run_dir)


def one_by_one(members: Sequence[Member]) -> dict[int, str]:
    """Train one member after the other."""
    failed: dict[int, str] = {}
    for member in members:
        try:
            with warning.apart():
                train.run(member.config, member.run_dir)
        except (MlefwError, OSError) as error:
            failed[member.number] = str(error)
            if not (member.run_dir / "summary.json").is_file():
                member.run_dir.mkdir(mode=0o755, exist_ok=True)
                write_json(member.run_dir / "summary.json", {"status": "failed", "reason": str(error)})
    return failed


def _check(config: Settings) -> None:
    """Refuse what an ensemble is not for, before anything is read."""
    if topology.to_start(config.trainer) > 1:
        raise UsageError("ensemble= trains each member on one device: expected trainer.devices=1")
    if "_target_" in config.uncertainty:
        raise UsageError(
            f"uncertainty={config.choice('uncertainty')} is about the parameters of one network, and ensemble= mixes "
            "several: expected one of them"
        )
