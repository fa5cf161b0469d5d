"""Several trained runs as one model that predicts the equal-weight mixture of their distributions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from mlefw.schema.schema import Schema
from mlefw.system.atomic import Json
from mlefw.uncertainty.together import PooledHead, together

_ROLES = ("offset", "exposure", "weight", "id", "partial", "bounds", "event")


@dataclass(frozen=True)
class Pooled(Trained):
    """The mixture of several trained runs.

    Attributes:
        members: the runs; `schema` and `config` are those of the first.
    """

    members: tuple[Trained, ...] = ()

    @property
    def head(self) -> PooledHead:
        """What maps the etas of all members to the mixture."""
        head = self.objective.head
        assert isinstance(head, PooledHead)
        return head

    def adapted(self, **ways: Any) -> "Pooled":
        """With other ways to treat missing and unseen values."""
        members = tuple(member.adapted(**ways) for member in self.members)
        return replace(self, schema=replace(self.schema, **ways), members=members)

    def metrics(self) -> list[Metric]:
        """Those of the first member."""
        return self.members[0].metrics()

    def rows(self, table: Table, target_required: bool = True, whole: bool = True) -> Rows:
        """Coded rows, whose x holds every coding that the members have, each with its offset behind it."""
        found = [member.rows(table, target_required, whole) for member in _distinct(self.members)]
        x = torch.cat([column for rows in found for column in (rows.x, rows.offset.unsqueeze(1))], 1)
        return Rows(x, found[0].y, found[0].weight, torch.zeros_like(found[0].offset))


def load(run: str | Path | Sequence[str | Path], plugins: tuple[str, ...] = ()) -> Trained:
    """The model of a run, or the mixture of those of several, or of the members of an ensemble.

    Args:
        run: a run directory, a checkpoint file or the directory of an ensemble; several of them, also as one text,
            `a,b` or `[a,b]`.
        plugins: packages that parts of the runs may come from.

    Raises:
        UsageError: as `checkpoint.load` of each, or the runs do not predict one and the same.
    """
    members = [checkpoint.load(path, plugins) for path in paths_of(run)]
    return members[0] if len(members) == 1 else _mixed(members, _place(run))


def load_pooled(root: Path, plugins: tuple[str, ...] = ()) -> Pooled:
    """The mixture of the finished members of an ensemble, also of one alone.

    Raises:
        UsageError: as `load`.
    """
    return _mixed([checkpoint.load(path, plugins) for path in members_of(root)], root)


def _mixed(members: Sequence[Trained], place: Path | None) -> Pooled:
    for member in members[1:]:
        _check(members[0], member)
    distinct = _distinct(members)
    stops, stop = [], 0
    for member in distinct:
        stop += member.schema.num_features + 1
        stops.append(slice(stop - member.schema.num_features - 1, stop))
    codings = [_coding(member) for member in distinct]
    columns = [stops[codings.index(_coding(member))] for member in members]
    objective = together([member.objective for member in members], columns)
    config = members[0].config
    if place is not None and config.ensemble:
        # The rows of the whole are not those of its first member.
        config = config.replaced(ensemble={**config.ensemble, "member": None})
    return Pooled(objective, members[0].schema, config, place or members[0].path, members=tuple(members))


def paths_of(run: str | Path | Sequence[str | Path]) -> list[Path]:
    """The runs meant by a setting: of an ensemble those of its members."""
    return [path for name in _named(run) for path in members_of(name)]


def _named(run: str | Path | Sequence[str | Path]) -> Sequence[str | Path]:
    return (several(str(run)) or [run]) if isinstance(run, str | Path) else run


def _place(run: str | Path | Sequence[str | Path]) -> Path | None:
    """The directory of the one ensemble that is meant; None for several runs."""
    named = _named(run)
    return Path(named[0]) if len(named) == 1 else None


def _coding(trained: Trained) -> tuple[Schema, bool]:
    """What decides on how a table is coded."""
    return trained.schema, trained.objective.head.log_link


def _distinct(members: Sequence[Trained]) -> list[Trained]:
    """The first member of each coding."""
    found: list[Trained] = []
    for member in members:
        if _coding(member) not in [_coding(one) for one in found]:
            found.append(member)
    return found


def _check(first: Trained, other: Trained) -> None:
    """Hold a member to what the first one predicts, and from what."""
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


def check_split(trained: Trained, split: str) -> None:
    """Refuse rows of the runs' own data where these are not the same rows for all members.

    Raises:
        UsageError: naming two members.
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
    """Adds up blocks of rows under each member of a mixture, and how far the members agree.

    Args:
        trained: the mixture.
        splits_entropy: whether to say how far the members agree, which takes most of the time.
    """

    def __init__(self, trained: Pooled, splits_entropy: bool = True) -> None:
        self.splits_entropy = splits_entropy
        self.trained, self.nll = trained, [Nll() for _ in trained.members]
        self.population = 0.0
        self.sums = torch.zeros(len(trained.schema.targets) if not trained.schema.bounds else 1, 3, dtype=torch.float64)

    @torch.no_grad()
    def add(self, rows: Rows) -> Tensor:
        """Add a block of rows; the NLL of the mixture in each of them, (n,)."""
        head, objective, mixed = self.trained.head, self.trained.objective, list[Tensor]()
        for part in rows.blocks(rows_at_once(head)):
            eta = objective.eta(part.x, part.offset)
            mixed.append(head.nll_complete(eta, part.y))
            for metric, distribution in zip(self.nll, head.members(eta), strict=True):
                metric.update(distribution, part.y, part.weight)
            self.population += part.population
            for index, found in enumerate(head.uncertainty(eta) if self.splits_entropy else ()):
                self.sums[index] += torch.stack([weighted_sum(part.weight, column) for column in found])
        return torch.cat(mixed)

    def figures(self, nll_nats: float | None) -> Json:
        """What an evaluation says of the members; `nll_nats` is that of the mixture on these rows."""
        each = [{name: float(value) for name, value in metric.compute().items()} for metric in self.nll]
        paths = [str(member.path) for member in self.trained.members]
        known = [
            {"run": path, **{name: value for name, value in one.items() if name != "nll_bits"}}
            for path, one in zip(paths, each, strict=True)
        ]
        mean = sum(one["nll_nats"] for one in each) / len(each)
        content: Json = {"num_members": len(each), "members": known, "mean_member_nll_nats": mean}
        content |= {} if nll_nats is None else {"gain_nats": mean - nll_nats}
        if not self.splits_entropy:
            return content
        names = ("entropy_nats", "shared_entropy_nats", "disagreement_nats")
        values = [dict(zip(names, row, strict=True)) for row in (self.sums / self.population).tolist()]
        if len(values) == 1:
            return content | values[0]
        targets = [target.name for target in self.trained.schema.targets]
        return content | {"targets": dict(zip(targets, values, strict=True))}
