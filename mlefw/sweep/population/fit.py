"""The training of the runs of a group together, an epoch of all of them at a time."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mlefw.configuration.settings import TrainerSettings
from mlefw.errors import MlefwError, Stopped
from mlefw.objective.objective import not_finite
from mlefw.rows.rows import Rows
from mlefw.run.build import build_average, build_metrics
from mlefw.sweep.population.member import Member
from mlefw.sweep.population.optimiser import StackedOptimiser
from mlefw.sweep.population.stacked import Stack
from mlefw.sweep.population.stacked_rows import StackedRows
from mlefw.system.allocator import keep_freed_memory
from mlefw.system.signals import deferred
from mlefw.training.averaging import Averaging
from mlefw.training.step import diverged


class TrainAloneError(MlefwError):
    """A run cannot be trained together with the others, and has to be trained alone."""


def fit(members: Sequence[Member], leave: Callable[[Sequence[Member]], None] | None = None) -> None:
    """Train each member to its own end; where one fails, `Member.error` says so, and the others go on.

    Args:
        members: the runs.
        leave: called with those that have come to their end while others go on, if anything is to be done at once.

    Raises:
        Stopped: by a signal, after every member's state is on disk.
    """
    with deferred(), keep_freed_memory():
        _Group(members, leave).run()


def device_of(trainer: TrainerSettings) -> torch.device:
    """The device on which Lightning's trainer with these settings, of one device, would train a run alone."""
    is_cuda = trainer.accelerator != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", 0) if is_cuda else torch.device("cpu")


class _Group:
    """The members that are still in training.

    Each member draws the rows of its steps as it would alone, by its own data module. All take equally many steps an
    epoch (`signature.alike`).
    """

    def __init__(self, members: Sequence[Member], leave: Callable[[Sequence[Member]], None] | None) -> None:
        self.members, self.leave = list(members), leave
        first = self.members[0].begun
        self.device = device_of(first.config.trainer)
        self.watched, self.evaluation_schedule = first.prepared.rows.watched, first.prepared.rows.evaluation_schedule
        self.regime = first.prepared.rows.regime
        self.splits = {split: stack_rows(self.members, split, self.device) for split in self.watched}
        estimand, modules = first.prepared.estimand, [member.module for member in self.members]
        self.metrics = build_metrics(first.config, estimand.objective.head, estimand.token_bytes)
        # Their own layers of dropout are not to act: those of the template do, in steps.
        objectives = [module.objective.to(self.device).eval() for module in modules]
        self.stack = Stack(objectives, [module.stream for module in modules])
        clip_norms = [member.begun.config.step.clip_norm for member in self.members]
        self.optimiser = StackedOptimiser(self.stack, [module.optimizer for module in modules], clip_norms)
        self.averaging = self._averaging([])
        for member in self.members:
            member.store = partial(self._store, member)
            member.share_time(len(self.members))

    def run(self) -> None:
        """Train until every member has ended or failed."""
        self._each(Member.start)
        self._each(Member.end_first_evaluation, self._figures())
        while self._has_more():
            begun, most = self.members[0].current_epoch, self.members[0].max_epochs
            end = min(self.evaluation_schedule.following(begun), most)
            self._each(Member.begin_epoch)
            for epoch in range(begun, end):
                if epoch > begun:
                    self._each(Member.begin_another_epoch)
                    self.optimiser.refresh()
                self._each(Member.end_steps, [self._steps(epoch)] * len(self.members))
            self._each(_check_steps)
            self._each(Member.end_evaluation, self._figures(end))
            self._each(Member.end_epoch)

    def _averaging(self, held: Sequence[Tensor]) -> Averaging | None:
        """What averages the weights of all members, (M, num_parameters), beginning with those `held`; None for none."""
        average = build_average(self.members[0].begun.config.average)
        if average is None:
            return None
        averaging = Averaging(average, [self.stack.flat], [self.stack.rate > 0])
        averaging.restore(held)
        return averaging

    def _store(self, member: Member) -> None:
        """Bring the state of the optimiser, of dropout and of the average into the member's own, for a checkpoint."""
        self.optimiser.store(member.module.optimizer)
        if self.stack.masks is not None:
            self.stack.masks.store(self.members.index(member))
        own = member.module.averaging
        if self.averaging is not None and own is not None and self.averaging.held:
            row = self.averaging.held[0][self.members.index(member)]
            own.restore(self.stack.parts(row, member.module.objective))

    def _each(self, act: Callable[..., None], values: Sequence[Any] | None = None) -> None:
        """Call a method of each member. An error ends that member alone; a signal waits until all were called."""
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
        """Drop the members that have ended or failed; whether any are left."""
        stay = [i for i, member in enumerate(self.members) if member.error is None and not member.has_ended]
        if len(stay) < len(self.members):
            ended = [member for member in self.members if member.has_ended]
            index = torch.tensor(stay, dtype=torch.long)
            self.stack.keep(index)
            self.optimiser.keep(index)
            for rows in self.splits.values():
                rows.keep(stay)
            self.members = [self.members[i] for i in stay]
            if self.averaging is not None and stay:
                self.averaging = self._averaging([weights[index] for weights in self.averaging.held])
            for member in ended:
                member.module.objective.cpu()
            if self.leave is not None and ended:
                self.leave(ended)
        self.optimiser.refresh()
        return bool(self.members)

    def _figures(self, num_epochs: int = 0) -> list[dict[str, dict[str, float]]]:
        """The figures of each member after so many epochs, by watched split, with its penalty and objective."""
        has_train = [member.begun.prepared.rows.evaluation_schedule.has_train(num_epochs) for member in self.members]
        watched = [split for split in self.watched if split != "train" or any(has_train)]
        found = {split: self.stack.figures(self.splits[split], self.metrics) for split in watched}
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
        """Take the steps of an epoch; their number."""
        train, losses, taken = self.splits["train"], list[Tensor](), list[list[Tensor]]()
        shares = self.stack.shares
        orders = [member.begun.prepared.rows.steps(range(epoch, epoch + 1)) for member in self.members]
        own_rows = self._moving(epoch)
        length = 1 / self.evaluation_schedule.num_steps(epoch + 1)
        if self.averaging is not None:
            self.averaging.exchange()
        for drawn in zip(*orders, strict=True):
            index, scales = [index for index, _, _ in drawn], [scale for _, scale, _ in drawn]
            sizes = [len(own) for own in index]
            is_shared = train.is_shared and len(index[0]) == train.rows.num_rows and self.regime.without_replacement
            is_shared = is_shared and not own_rows
            rows = _stacked(own_rows, index) if own_rows else train.rows if is_shared else train.take(index)
            if shares is None and len({*scales}) == 1:
                value, gradient = self.stack.gradient(rows, scales[0], is_shared, sizes)
            else:
                own = torch.tensor(scales, dtype=torch.float64, device=self.device)
                own = own if shares is None else own * shares
                value, gradient = self.stack.gradient(rows, own, is_shared, sizes)
            self.optimiser.step(gradient)
            if self.averaging is not None:
                self.averaging.update(epoch + (len(losses) + 1) * length, length)
            if self.members[0].module.is_scheduled_by_step:
                for member in self.members:
                    member.module.schedule_step()
                self.optimiser.refresh()
            losses.append(value)
            taken.append(index)
        values = torch.stack(losses).T.tolist()
        for i, member in enumerate(self.members):
            member.module.note(values[i])
            at = next((k for k, value in enumerate(values[i]) if not math.isfinite(value)), None)
            if at is not None:
                rows = own_rows[i] if own_rows else train.of(i)
                self._end_diverged(i, epoch, at, rows.take(taken[at][i].to(self.device)))
        if self.averaging is not None:
            self.averaging.exchange()
        return len(losses)

    def _moving(self, epoch: int) -> list[Rows]:
        """The rows of each member in an epoch, where training draws from others in each (windows of a text)."""
        modules = [member.begun.prepared.rows for member in self.members]
        whole = modules[0].splits["train"]
        whole = whole.to(self.device) if whole.is_moving else whole
        return [module.of_epoch(whole, epoch) for module in modules] if whole.is_moving else []

    def _end_diverged(self, index: int, epoch: int, at: int, rows: Rows) -> None:
        """Let a member that has diverged fail, or be trained alone where it may go back to a good state.

        Args:
            index: of the member.
            epoch: the epoch, from 0.
            at: the step of the epoch whose objective is not finite, from 0.
            rows: its rows, standardised.
        """
        member = self.members[index]
        cause = not_finite(self.stack.objectives[index], rows, True)
        error = diverged(member.global_step + at + 1, epoch, cause, member.begun.config.step.clip_norm)
        member.fail(TrainAloneError(str(error)) if member.begun.config.step.recoveries else error)


def stack_rows(members: Sequence[Member], split: str, device: torch.device | str = "cpu") -> StackedRows:
    """The standardised rows of a split, for all members, on a device."""
    prepared = [member.begun.prepared for member in members]
    raw = [one.data.splits[split] for one in prepared]
    first = prepared[0].estimand.objective.model.standardize
    if all(rows is raw[0] for rows in raw):
        whole = raw[0].gathered()
        return StackedRows([whole._replace(x=first(whole.x))] * len(raw), device)  # type: ignore[operator]
    standardize = [one.estimand.objective.model.standardize for one in prepared]
    parts = [rows._replace(x=own(rows.x)) for rows, own in zip(raw, standardize, strict=True)]  # type: ignore[operator]
    return StackedRows(parts, device)


def _stacked(rows: Sequence[Rows], index: Sequence[Tensor]) -> Rows:
    """A batch of each member from rows of tokens, (M, batch, …), with tokens as a model gets them."""
    parts = [own.take(positions.to(own.device)) for own, positions in zip(rows, index, strict=True)]
    return Rows(
        *(torch.stack(column) for column in zip(*(part._replace(x=part.x.long()) for part in parts), strict=True))
    )


def _check_steps(member: Member) -> None:
    """Hold the steps since the last evaluation to what a training that converges comes through.

    Raises:
        TrainAloneError: the objective has exploded, and the settings let the run go back to a good state.
    """
    total, number = member.module.losses
    if member.begun.config.step.recoveries and member.module.recovery.is_exploded(total / max(number, 1)):
        raise TrainAloneError("the steps up to an evaluation have led far above the objective before training")
