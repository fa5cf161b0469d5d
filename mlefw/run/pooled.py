"""Several trained runs as one model that predicts the mixture of their distributions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlefw.callback.stored_state import Content
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.path_setting import several
from mlefw.errors import UsageError
from mlefw.metric.base import Metric
from mlefw.metric.nll import Nll
from mlefw.objective.objective import rows_at_once
from mlefw.reading.table import Table
from mlefw.rows.rows import Rows, weighted_sum
from mlefw.run import archive, checkpoint
from mlefw.run.checkpoint import Card, Trained
from mlefw.run.directory import members_of
from mlefw.run.mixture_weights import Weights, weights_of
from mlefw.schema.kinds import RowSchema
from mlefw.schema.schema import Schema
from mlefw.system.atomic import Json
from mlefw.uncertainty.pool import equal
from mlefw.uncertainty.together import PooledHead, together

_ROLES = ("offset", "exposure", "weight", "id", "partial", "bounds", "event", "trials")
"""Attributes of a schema that have to agree among the runs of a mixture."""


@dataclass(frozen=True)
class Pooled(Trained):
    """The mixture of several trained runs; `schema` and `config` are those of the first.

    Attributes:
        members: the runs.
        shares: the weight of each run in the mixture, by its path; empty where all members count alike.
    """

    members: tuple[Trained, ...] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    @property
    def head(self) -> PooledHead:
        """The head that maps the etas of all members, side by side, to the mixture."""
        head = self.objective.head
        assert isinstance(head, PooledHead)
        return head

    def adapted(self, **ways: Any) -> "Pooled":
        """The mixture with other ways to treat `missing` and `unseen` values."""
        members = tuple(member.adapted(**ways) for member in self.members)
        return replace(self, schema=self.schema.adapted(**ways), members=members)

    def metrics(self) -> list[Metric]:
        """New metrics as the settings of the first member name them."""
        return self.members[0].metrics()

    def rows(self, table: Table, target_required: bool = True, whole: bool = True) -> Rows:
        """Coded rows of a table; x holds the features in each coding of the members, each followed by its offset."""
        found = [member.rows(table, target_required, whole) for member in _distinct(self.members)]
        x = torch.cat([column for rows in found for column in (rows.x, rows.offset.unsqueeze(1))], 1)
        return Rows(x, found[0].y, found[0].weight, torch.zeros_like(found[0].offset))


def load(run: str | Path | Sequence[str | Path], plugins: tuple[str, ...] = (), weights: Weights = "equal") -> Trained:
    """The model of a run, or the mixture of the models of several runs or of an ensemble's members.

    Args:
        run: a run directory, a checkpoint file or the directory of an ensemble; or several of them, as a sequence or as
            one text, `a,b` or `[a,b]`.
        plugins: packages other than mlefw and torch whose classes may be built.
        weights: of the runs, as in `weights_of`; the members of an ensemble share its weight, and runs of weight zero
            are left out.

    Raises:
        UsageError: as `checkpoint.load` and `weights_of`, or the runs have different targets, features, roles or kinds
            of head.
    """
    named = _as_list(run)
    shares = weights_of(named, weights) or [1.0] * len(named)
    groups = [(share, members_of(name)) for share, name in zip(shares, named, strict=True) if share > 0]
    members = [checkpoint.load(path, plugins) for _, group in groups for path in group]
    if len(members) == 1:
        return members[0]
    if weights == "equal":
        return _mixed(members, _ensemble_directory(run), equal(len(members)))
    each = [share / len(group) for share, group in groups for _ in group]
    mixed = _mixed(members, None, torch.tensor(each, dtype=torch.float64).log())
    return replace(mixed, shares={str(name): share for name, share in zip(named, shares, strict=True)})


def restored(contents: Mapping[Path, Content], plugins: tuple[str, ...] = ()) -> Trained:
    """The model in the content of a checkpoint, or the mixture, with equal weights, of several; by their files.

    Raises:
        UsageError: as `checkpoint.restored`.
    """
    members = [checkpoint.restored(path, content, plugins) for path, content in contents.items()]
    return members[0] if len(members) == 1 else _mixed(members, None, equal(len(members)))


def load_pooled(root: Path, plugins: tuple[str, ...] = ()) -> Pooled:
    """The mixture of the finished members of an ensemble, also if there is only one.

    Raises:
        UsageError: as `load`.
    """
    members = [checkpoint.load(path, plugins) for path in members_of(root)]
    return _mixed(members, root, equal(len(members)))


def _mixed(members: Sequence[Trained], place: Path | None, log_weight: Tensor) -> Pooled:
    """The mixture of some runs; `place` is the directory of an ensemble, None for separate runs."""
    for member in members:
        if not isinstance(member.schema, Schema):
            raise UsageError(f"run={member.path}: its rows are no rows of a table, and only such runs can be mixed")
    for member in members[1:]:
        _check(members[0], member)
    _check_calibrations(members, place)
    # Members with the same coding share the columns of x: features, then the offset.
    distinct = _distinct(members)
    stops, stop = [], 0
    for member in distinct:
        stop += member.schema.num_features + 1
        stops.append(slice(stop - member.schema.num_features - 1, stop))
    codings = [_coding(member) for member in distinct]
    columns = [stops[codings.index(_coding(member))] for member in members]
    objective = together([member.objective for member in members], columns, log_weight)
    config = members[0].config
    if place is not None and config.ensemble:
        # The splits of the ensemble may differ from those of its first member.
        config = config.replaced(ensemble={**config.ensemble, "member": None})
    return Pooled(objective, members[0].schema, config, place or members[0].path, members=tuple(members))


def paths_of(run: str | Path | Sequence[str | Path]) -> list[Path]:
    """The runs that the setting `run` names; for an ensemble its finished members."""
    return [path for name in _as_list(run) for path in members_of(name)]


def _as_list(run: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return (several(str(run)) or [run]) if isinstance(run, str | Path) else run


def _ensemble_directory(run: str | Path | Sequence[str | Path]) -> Path | None:
    """The directory that is named, which is that of an ensemble; None where several runs are named."""
    named = _as_list(run)
    return Path(named[0]) if len(named) == 1 else None


def _coding(trained: Trained) -> tuple[RowSchema, bool]:
    """Everything on which the coding of a table depends."""
    return trained.schema, trained.objective.head.log_link


def _distinct(members: Sequence[Trained]) -> list[Trained]:
    """For each coding the first member that has it."""
    found: list[Trained] = []
    for member in members:
        if _coding(member) not in [_coding(one) for one in found]:
            found.append(member)
    return found


def _check(first: Trained, other: Trained) -> None:
    """Refuse a run whose target, kind of head, features or roles differ from those of the first."""
    a, b, where = first.schema, other.schema, f"run={first.path},{other.path}"
    if [target.name for target in a.targets] != [target.name for target in b.targets]:
        raise UsageError(f"{where}: one predicts {a.target}, the other {b.target}: expected runs with the same target")
    for one, two in zip(a.targets, b.targets, strict=True):
        if one.labels != two.labels:
            labels = [", ".join(found or ("numbers",)) for found in (one.labels, two.labels)]
            raise UsageError(
                f"{where}: the target {one.name} has {labels[0]} in one and {labels[1]} in the other: expected the "
                "same labels in the same order"
            )
    heads = (first.objective.head, other.objective.head)
    if heads[0].support.is_discrete != heads[1].support.is_discrete:
        raise UsageError(f"{where}: one predicts a density, the other a mass, which have no common unit")
    if heads[0].event_shape != heads[1].event_shape:
        raise UsageError(f"{where}: one predicts a number, the other bounds of one: expected heads of one kind")
    features = [{feature.name for feature in schema.features} for schema in (a, b)]
    if features[0] != features[1]:
        names = ", ".join(sorted(features[0] ^ features[1])[:5])
        raise UsageError(f"{where}: one predicts from other columns than the other ({names}): expected the same")
    for role in _ROLES:
        if getattr(a, role) != getattr(b, role):
            what = f"{getattr(a, role)} and {getattr(b, role)}"
            raise UsageError(f"{where}: data.{role} is not the same in both ({what}): expected the same")


def _check_calibrations(members: Sequence[Trained], place: Path | None) -> None:
    """Refuse to mix models whose recalibrations cannot be mixed; `place` as for `_mixed`."""
    known = {type(member.calibration) for member in members}
    for member in members:
        if member.calibration is None or (len(members) == 1 and place is None):
            continue
        scheme: Any = instantiate("ensemble", member.config.ensemble) if place and member.config.ensemble else None
        member.calibration.check_mixture(scheme is not None and scheme.out_of_fold)
        if len(known) > 1 and not member.calibration.changes_density:
            raise UsageError(f"run={member.path}: its intervals are conformal, and those of other members are not")


def check_split(trained: Trained, split: str) -> None:
    """Refuse to evaluate a split of the runs' own data that does not have the same rows in all runs of a mixture.

    Raises:
        UsageError: naming two runs with different rows.
    """
    if not isinstance(trained, Pooled):
        return
    first = trained.members[0]
    known = _fingerprint(first, split)
    for other in trained.members[1:]:
        if other.config.data != first.config.data and _fingerprint(other, split) != known:
            raise UsageError(
                f"run={first.path},{other.path}: their {split} rows are not the same rows, so that one may have been "
                "trained on what the other holds out\n  expected: rows that none has seen, data.path=FILE"
            )


def _fingerprint(trained: Trained, split: str) -> str | None:
    return Card.of(trained.path, archive.read(trained.path)).fingerprint.get(split)


class MemberTally:
    """Adds up, over blocks of rows, the NLL of each member of a mixture and the disagreement of the members.

    Args:
        trained: the mixture.
        splits_entropy: whether to split the mixture's entropy into what members share and what they disagree on, which
            takes most of the time.
    """

    def __init__(self, trained: Pooled, splits_entropy: bool = True) -> None:
        self.splits_entropy = splits_entropy
        self.trained, self.nll = trained, [Nll() for _ in trained.members]
        self.population = 0.0
        self.sums = torch.zeros(len(trained.schema.targets) if not trained.schema.bounds else 1, 3, dtype=torch.float64)

    @torch.no_grad()
    def add(self, rows: Rows) -> Tensor:
        """Add a block of rows; the NLL of the mixture on each row, (n,), in nats."""
        head, objective, mixed = self.trained.head, self.trained.objective, list[Tensor]()
        for part in rows.blocks(rows_at_once(head, rows)):
            eta = objective.eta(part.x, part.offset)
            mixed.append(head.nll_complete(eta, part.y))
            for metric, distribution in zip(self.nll, head.members(eta), strict=True):
                metric.update(distribution, part.y, part.weight)
            self.population += part.population
            for index, found in enumerate(head.uncertainty(eta) if self.splits_entropy else ()):
                self.sums[index] += torch.stack([weighted_sum(part.weight, column) for column in found])
        return torch.cat(mixed)

    def figures(self, nll_nats: float | None) -> Json:
        """Figures of the members over the rows added; `nll_nats` is the NLL of the mixture on them, where known."""
        each = [{name: float(value) for name, value in metric.compute().items()} for metric in self.nll]
        paths = [str(member.path) for member in self.trained.members]
        known = [
            {"run": path, **{name: value for name, value in one.items() if name != "nll_bits"}}
            for path, one in zip(paths, each, strict=True)
        ]
        weights = self.trained.head.log_weight.exp().tolist()
        mean = sum(weight * one["nll_nats"] for weight, one in zip(weights, each, strict=True))
        content: Json = {"num_members": len(each), "members": known, "mean_member_nll_nats": mean}
        if shares := self.trained.shares:
            content["runs"] = [{"run": run, "weight": share} for run, share in shares.items()]
        content |= {} if nll_nats is None else {"gain_nats": mean - nll_nats}
        if not self.splits_entropy:
            return content
        names = ("entropy_nats", "shared_entropy_nats", "disagreement_nats")
        values = [dict(zip(names, row, strict=True)) for row in (self.sums / self.population).tolist()]
        if len(values) == 1:
            return content | values[0]
        targets = [target.name for target in self.trained.schema.targets]
        return content | {"targets": dict(zip(targets, values, strict=True))}
