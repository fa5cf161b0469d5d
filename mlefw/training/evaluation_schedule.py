"""After which epochs a training is evaluated, and on which rows."""

from mlefw.batch.base import BatchRegime

_GAP_DIVISOR = 10
"""Where an epoch is one step, the gap between evaluations is a tenth of the epochs done, and one epoch at first."""

_MAX_GAP = 50
"""The largest gap between two evaluations, in epochs."""

_WORK_DIVISOR = 20
"""Evaluating the training rows may cost one part in twenty of the work of the steps."""

_STEP_COST = 800
"""Cost of a step apart from its rows, in units of the cost of evaluating one row of a table: starting the
kernels."""

_STEP_ROW_COST = 2
"""Cost of each row of a step, in units of the cost of evaluating it."""


class EvaluationSchedule:
    """Says after which epochs a training is evaluated, and whether the training rows are, too.

    Validation rows are evaluated after each epoch of several steps. Where an epoch is a single step, some hundred
    epochs of thousands are evaluated, the first ones all. Training rows are evaluated after every epoch of small
    batches, and after every few epochs of large ones, where they would cost much beside the steps. The schedule depends
    on settings and the number of epochs alone, not on the clock: a run is the same on any machine, and when resumed.

    Args:
        regime: the batch regime, which says how many steps an epoch has.
        num_rows: number of training rows.
        has_validation: whether there are validation rows; without any, every evaluation is of the training rows.
        every: a fixed number of epochs from one evaluation to the next, each then of all rows; None for the above.
        row_cost: cost of evaluating one row, in units of that of a row of a table: the number of pixels or positions.
    """

    def __init__(
        self,
        regime: BatchRegime,
        num_rows: int,
        has_validation: bool = True,
        every: int | None = None,
        row_cost: int = 1,
    ) -> None:
        self.regime, self.num_rows, self.row_cost = regime, num_rows, row_cost
        self.has_validation, self.every = has_validation, every

    def is_due(self, num_epochs: int) -> bool:
        """Whether an evaluation follows epoch number `num_epochs`, counted from 1; 0 is before training."""
        if self.every is not None:
            return num_epochs % self.every == 0
        if num_epochs == 0 or self.num_steps(num_epochs) > 1:
            return True
        return num_epochs % max(1, min(_MAX_GAP, num_epochs // _GAP_DIVISOR)) == 0

    def following(self, num_epochs: int) -> int:
        """The number of epochs done at the next evaluation, when `num_epochs` are done now."""
        num_epochs += 1
        while not self.is_due(num_epochs):
            num_epochs += 1
        return num_epochs

    def gap(self, num_epochs: int) -> int:
        """The number of epochs between an evaluation after `num_epochs` epochs and the one before it."""
        before = num_epochs - 1
        while before > 0 and not self.is_due(before):
            before -= 1
        return num_epochs - before

    def has_train(self, num_epochs: int) -> bool:
        """Whether the evaluation after `num_epochs` epochs includes the training rows."""
        if self.every is not None or not self.has_validation or num_epochs <= 1:
            return True
        rows = self.row_cost * self.num_rows
        work = _STEP_COST * self.num_steps(num_epochs) + _STEP_ROW_COST * rows
        period = -(-_WORK_DIVISOR * rows // work)
        return num_epochs // period > (num_epochs - self.gap(num_epochs)) // period

    def num_steps(self, num_epochs: int) -> int:
        """The number of steps in epoch number `num_epochs`, counted from 1."""
        return self.regime.num_batches(self.num_rows, num_epochs - 1)
