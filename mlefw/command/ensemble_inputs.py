"""mlefw train ensemble=… inputs=auto: trains members with each candidate, and keeps those of the best one."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch

from mlefw.command.choose_inputs import check_rows, with_inputs
from mlefw.command.ensemble_member import Member
from mlefw.configuration.expansion import load_yaml
from mlefw.configuration.read import as_yaml, moved
from mlefw.configuration.settings import Settings
from mlefw.errors import NumericalError
from mlefw.run import row_scores
from mlefw.run.directory import CANDIDATES, MEMBERS
from mlefw.run.essentials import CHOSEN_BY
from mlefw.system.atomic import write_json, write_text


def candidates(config: Settings, root: Path) -> dict[str, tuple[Settings, Path]]:
    """Settings and directory of the ensemble with each candidate, by its name.

    One entry, with the settings as they are, where inputs are not to be chosen.
    """
    if not config.candidates:
        return {config.choice("inputs"): (config, root)}
    return {name: (with_inputs(config, name), root / CANDIDATES / name) for name in config.candidates}


def check(config: Settings, splits: Collection[str]) -> None:
    """Refuse `inputs=auto` if members have no validation rows.

    Args:
        config: the settings of the ensemble.
        splits: names of the splits of a member.

    Raises:
        UsageError: inputs are to be chosen, and there are no validation rows.
    """
    if config.candidates:
        check_rows(config, splits)


def choose(
    config: Settings, root: Path, members: Mapping[str, Sequence[Member]], failed: Mapping[Path, str]
) -> tuple[Settings, dict[int, str]]:
    """Keep the members with the best candidate, and remove the others; where inputs are not to be chosen, keep all.

    The best candidate is one with the fewest failed members; among several, the one whose members have the least mean
    NLL on their validation rows. With `ensemble=folds` these are all rows, each under the member not trained on it.

    Args:
        config: the settings of the ensemble.
        root: its directory.
        members: the members by candidate, trained or failed.
        failed: why members failed, by their directories.

    Returns:
        The settings of the ensemble with the chosen inputs, and why members failed, by number.

    Raises:
        NumericalError: all members failed with every candidate.
    """
    lost = {name: sum(one.run_dir in failed for one in group) for name, group in members.items()}
    left = [name for name, group in members.items() if lost[name] < len(group)]
    if not left:
        raise NumericalError(f"no member of the ensemble was trained: {next(iter(failed.values()))}")
    best = left[0]
    if config.candidates:
        values = {name: _nll(members[name]) for name in left}
        best = min(left, key=lambda name: (lost[name], values[name]))
        reason = "it was stopped before the mixture was evaluated; resume goes on with it"
        write_json(root / "summary.json", {"status": "failed", "reason": reason, "inputs": {CHOSEN_BY: values}})
        config = with_inputs(config, best)
        write_text(root / "config.yaml", as_yaml(config.plain))
        adopt(config, root)
    return config, {one.number: failed[one.run_dir] for one in members[best] if one.run_dir in failed}


def adopt(config: Settings, root: Path) -> None:
    """Move the members with the chosen inputs to the folder of members, and remove the other candidates.

    Nothing happens while inputs are still to be chosen, or if it is done already. It may be called again after an
    interruption.
    """
    if config.candidates or not (root / CANDIDATES).is_dir():
        return
    if not (root / MEMBERS).is_dir():
        folder = root / CANDIDATES / config.choice("inputs") / MEMBERS
        for own in folder.glob("*/config.yaml"):
            there = str(root / MEMBERS / own.parent.name)
            write_text(own, as_yaml(moved(load_yaml(own), str(own.parent), there)))
        folder.replace(root / MEMBERS)
    shutil.rmtree(root / CANDIDATES)


def _nll(members: Sequence[Member]) -> float:
    """The mean NLL of the members on their validation rows, in nats per row; at least one member has to be trained."""
    scores = [row_scores.read(member.run_dir, "validation") for member in members]
    known = [score for score in scores if score is not None]
    nll, weight = torch.cat([score.nll for score in known]), torch.cat([score.weight for score in known])
    return float(weight @ nll / weight.sum())
