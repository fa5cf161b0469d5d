"""mlefw train ensemble=…: several networks in one run directory, and the mixture of what they predict."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mlefw.command import ensemble_inputs, train
from mlefw.command.ensemble_member import Member, member_of
from mlefw.command.train import Begun
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.settings import Settings
from mlefw.distributed import topology
from mlefw.errors import MlefwError, UsageError
from mlefw.model.base import StartsAtEstimate
from mlefw.run import build, ensemble
from mlefw.run.directory import check_free, locked
from mlefw.run.prepare import prepare, start
from mlefw.system import shared_work, warning
from mlefw.system.atomic import Json, write_json
from mlefw.system.own_folder import mark_own
from mlefw.system.warning import warn

FAILED = 5
"""Exit code where a member failed and the others are mixed."""

Train = Callable[[Path, Sequence[Member]], dict[Path, str]]
"""Trains members below a directory; the reasons of those that failed, by their directories."""


def run(config: Settings, root: Path, trained: Train | None = None, is_resumed: bool = False) -> Json:
    """Train the members, and write the summary of their mixture; its content.

    Args:
        config: the settings of the ensemble.
        root: the directory of the ensemble; each member has a directory below it.
        trained: trains the members; by default one after the other, in this process.
        is_resumed: whether an ensemble in `root` is resumed.

    Raises:
        UsageError: a mistake in settings or data; nothing is written then.
        NumericalError: the training of every member failed.
    """
    started = time.monotonic()
    scheme: Any = instantiate("ensemble", config.ensemble)
    _check(config)
    if (calibration := build.build_calibration(config.calibrate)) is not None:
        calibration.check_mixture(scheme.out_of_fold)
    with ExitStack() as held:
        if is_shared := shared_work.is_shareable(config.plain):
            held.enter_context(shared_work.shared_within_block())
        # Recalibration and uncertainty of parameters belong to each member, not to the mixture.
        whole = Settings.of(scheme.whole(config.plain)).replaced(calibrate={}, uncertainty={})
        if not is_resumed:
            check_free(root)
        prepared = start(whole, prepare(whole, None))
        if not prepared.data.schema.row_shape.is_table:
            raise UsageError(f"ensemble={config.choice('ensemble')} mixes models of tables: expected ensemble=none")
        if scheme.members > (count := prepared.data.train.num_rows):
            raise UsageError(f"ensemble.members={scheme.members}: there are {count} training rows to train them on")
        root = root.absolute()
        estimated = not isinstance(prepared.estimand.objective.model.model, StartsAtEstimate)
        members = {
            name: [member_of(one, scheme, folder, number, estimated) for number in range(scheme.members)]
            for name, (one, folder) in ensemble_inputs.candidates(config, root).items()
        }
        # Prepared ahead, if results are shared: candidates and forked processes then find what members learn from rows.
        first = next(iter(members.values()))
        for one in first if is_shared else first[:1]:
            ensemble_inputs.check(config, prepare(one.config, None).data.splits)
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        mark_own(root)
        with locked(root):
            begun = Begun(config, root, prepared, {})
            with train.recorded_failure(begun):
                yardstick, baseline = train.measure(begun)
                ensemble_inputs.adopt(config, root)
                for group in members.values():
                    group[0].run_dir.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                reasons = (trained or one_by_one)(root, [member for group in members.values() for member in group])
                config, failed = ensemble_inputs.choose(config, root, members, reasons)
                for number, reason in failed.items():
                    warn(f"member {number} of the ensemble failed, and is not in the mixture: {reason}")
                return ensemble.conclude(config, root, prepared, yardstick, baseline, failed, started)


def one_by_one(root: Path, members: Sequence[Member]) -> dict[Path, str]:
    """Train one member after the other; the reasons of those that failed, by their directories."""
    failed: dict[Path, str] = {}
    for member in members:
        try:
            with warning.separate_run():
                train.run(member.config, member.run_dir)
        except (MlefwError, OSError) as error:
            failed[member.run_dir] = str(error)
            if not (member.run_dir / "summary.json").is_file():
                member.run_dir.mkdir(mode=0o755, exist_ok=True)
                write_json(member.run_dir / "summary.json", {"status": "failed", "reason": str(error)})
    return failed


def _check(config: Settings) -> None:
    """Refuse several devices, and an uncertainty of parameters, before anything is read."""
    if topology.num_to_start(config.trainer) > 1:
        raise UsageError("ensemble= trains each member on one device: expected trainer.devices=1")
    if "_target_" in config.uncertainty:
        raise UsageError(
            f"uncertainty={config.choice('uncertainty')} is about the parameters of one network, and ensemble= mixes "
            "several: expected one of them"
        )
