"""The joint training of a population, an epoch of all members at a time."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlefw.errors import MlefwError, NumericalError, Stopped
from mlefw.objective.objective import not_finite
from mlefw.run.build import build_average, build_metrics
from mlefw.sweep.population.member import Member
from mlefw.sweep.population.optimiser import Vectorised
from mlefw.sweep.population.stacked import Stack
from mlefw.sweep.population.table import Table
from mlefw.system.allocator import keep_freed_memory
from mlefw.system.signals import deferred
from mlefw.training.averaging import Averaging
from mlefw.training.step import diverged


class ToTrainAloneError(MlefwError):
    """A run goes back to a good state of its training, which it cannot do among others."""


def fit(members: Sequence[Member]) -> None:
    """Train each to its own end; one that fails keeps its error, and the others go on.

    Raises:
        Stopped: by a signal, after every member's state is on disk.
    """
    with deferred(), keep_freed_memory():
        _Group(members).run()


class _Group:
    """The members that are still in training.

    The rows of a step are looked up by position, in the order in which the member's own data module gives them. Members
    take as many steps an epoch as one another (`signature.alike`).
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        first = self.members[0].begun
        self.watched, self.cadence = first.prepared.rows.watched, first.prepared.rows.cadence
        self.regime = first.prepared.rows.regime
        self.tables = {split: table_of(self.members, split) for split in self.watched}
        self.metrics = build_metrics(first.config, first.prepared.estimand.objective.head)
        self.stack = Stack([member.module.objective for member in self.members])
        optimizers = [member.optimizer for member in self.members]
        self.optimiser = Vectorised(self.stack, optimizers, first.config.step.clip_norm)
        self.averaging = self._averaging([])
        for member in self.members:
            member.store = partial(self._store, member)
            member.share_time(len(self.members))

    def run(self) -> None:
        """Train until no member is left."""
        self._each(Member.start)
        self._each(Member.look_before, self._figures())
        while self._has_more():
            begun, most = self.members[0].current_epoch, self.members[0].max_epochs
            end = min(self.cadence.following(begun), most)
            self._each(Member.begin_epoch)
            for epoch in range(begun, end):
                if epoch > begun:
                    self._each(Member.begin_another_epoch)
                    self.optimiser.refresh()
                self._each(Member.end_steps, [self._steps(epoch)] * len(self.members))
            self._each(_check_steps)
            self._each(Member.end_epoch, self._figures(end))

    def _averaging(self, held: Sequence[Tensor]) -> Averaging | None:
        """What averages the weights of all members, row by row, with what it holds beside them so far."""
        average = build_average(self.members[0].begun.config.average)
        if average is None:
            return None
        averaging = Averaging(average, [self.stack.flat], [self.stack.rate > 0])
        averaging.restore(held)
        return averaging

    def _store(self, member: Member) -> None:
        """Let the member's own optimiser and average hold what those of the group do, for a checkpoint."""
        self.optimiser.store(member.optimizer)
        own = member.module.averaging
        if self.averaging is not None and own is not None and self.averaging.held:
            row = self.averaging.held[0][self.members.index(member)]
            own.restore(self.stack.parts(row, member.module.objective))

    def _each(self, act: Callable[..., None], values: Sequence[Any] | None = None) -> None:
        """Let each act; an error is its own, and a signal waits until all have written what they are at."""
        stopped: Stopped | None = None
        for i, member in enumerate(self.members):
            if member.error is not None:
                continue
            try:
                act(member, *([] if values is None else [values[i]]))
            except Stopped as error:
                stopped = error
            except (MlefwError, OSError) as error:
                member.fail(error)
        if stopped is not None:
            raise stopped

    def _has_more(self) -> bool:
        """Go on without the members that have ended or failed, if there are others."""
        stay = [i for i, member in enumerate(self.members) if member.error is None and not member.has_ended]
        if len(stay) < len(self.members):
            index = torch.tensor(stay, dtype=torch.long)
            self.stack.keep(index)
            self.optimiser.keep(index)
            for table in self.tables.values():
                table.keep(stay)
            self.members = [self.members[i] for i in stay]
            if self.averaging is not None and stay:
                self.averaging = self._averaging([weights[index] for weights in self.averaging.held])
        self.optimiser.refresh()
        return bool(self.members)

    def _figures(self, num_epochs: int = 0) -> list[dict[str, dict[str, float]]]:
        """The figures of each member on the watched splits after so many epochs, with its penalty."""
        has_train = [member.begun.prepared.rows.cadence.has_train(num_epochs) for member in self.members]
        watched = [split for split in self.watched if split != "train" or any(has_train)]
        found = {split: self.stack.figures(self.tables[split], self.metrics) for split in watched}
        penalties = [float(objective.penalty().detach()) for objective in self.stack.objectives]
        for values in found.values():
            for figures, penalty, objective in zip(values, penalties, self.stack.objectives, strict=True):
                figures["penalty"] = penalty
                figures["objective"] = figures["nll_nats"] + penalty / objective.population
        return [
            {split: values[i] for split, values in found.items() if split != "train" or has}
            for i, has in enumerate(has_train)
        ]

    def _steps(self, epoch: int) -> int:
        """The steps of an epoch; how many."""
        train, losses, taken = self.tables["train"], list[Tensor](), list[list[Tensor]]()
        shares = self.stack.shares
        orders = [member.begun.prepared.rows.steps(range(epoch, epoch + 1)) for member in self.members]
        length = 1 / self.cadence.num_steps(epoch + 1)
        if self.averaging is not None:
            self.averaging.exchange()
        for drawn in zip(*orders, strict=True):
            index, scales = [index for index, _, _ in drawn], [scale for _, scale, _ in drawn]
            is_shared = train.is_shared and len(index[0]) == train.rows.num_rows and self.regime.without_replacement
            rows = train.rows if is_shared else train.take(index)
            if shares is None and len({*scales}) == 1:
                value, gradient = self.stack.gradient(rows, scales[0], is_shared)
            else:
                own = torch.tensor(scales, dtype=torch.float64) * (1.0 if shares is None else shares)
                value, gradient = self.stack.gradient(rows, own, is_shared)
            self.optimiser.step(gradient)
            if self.averaging is not None:
                self.averaging.update(epoch + (len(losses) + 1) * length, length)
            losses.append(value)
            taken.append(index)
        values = torch.stack(losses).T.tolist()
        for i, member in enumerate(self.members):
            member.module.note(values[i])
            at = next((k for k, value in enumerate(values[i]) if not math.isfinite(value)), None)
            if at is not None:
                cause = not_finite(self.stack.objectives[i], train.of(i).take(taken[at][i]), True)
                step, clip_norm = member.global_step + at + 1, member.begun.config.step.clip_norm
                self._leave(member, diverged(step, epoch, cause, clip_norm))
        if self.averaging is not None:
            self.averaging.exchange()
        return len(losses)

    def _leave(self, member: Member, error: NumericalError) -> None:
        """Let a member that diverges fail, or train alone, where it can go back to a good state."""
        goes_back = bool(member.begun.config.step.recoveries)
        member.fail(ToTrainAloneError(str(error)) if goes_back else error)


def table_of(members: Sequence[Member], split: str) -> Table:
    """The rows of a split as the members see them, standardised."""
    prepared = [member.begun.prepared for member in members]
    raw = [one.data.splits[split] for one in prepared]
    first = prepared[0].estimand.objective.model.standardize
    if all(rows is raw[0] for rows in raw):
        return Table([raw[0]._replace(x=first(raw[0].x))] * len(raw))  # type: ignore[operator]
    standardize = [one.estimand.objective.model.standardize for one in prepared]
    return Table([rows._replace(x=own(rows.x)) for rows, own in zip(raw, standardize, strict=True)])  # type: ignore[operator]


def _check_steps(member: Member) -> None:
    """Let a member whose steps have led too far train alone.

    Raises:
        ToTrainAloneError: they have, and it may go back.
    """
    total, number = member.module.losses
    if member.begun.config.step.recoveries and member.module.recovery.is_exploded(total / max(number, 1)):
        raise ToTrainAloneError("the steps up to an evaluation have led far above the objective before training")
