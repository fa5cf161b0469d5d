"""After which epochs a training is evaluated, and on which rows."""

from mlefw.batch.base import BatchRegime

_SPARSER = 10
"""Epochs of one step are evaluated again when there are this part more of them, one in ten: all of the first ones."""

_MOST = 50
"""Epochs between two evaluations, at the most."""

_SHARE = 20
"""One part in so many of the work of the steps is what training rows may cost to evaluate."""

_START = 800
"""Rows that are evaluated while a step starts its kernels; a row of a step takes as long as `_STEP_ROWS` of them."""
_STEP_ROWS = 2


class Cadence:
    """After each epoch on the held-out rows; where that would cost more than the training itself, less often.

    An epoch of a single step is a step: of thousands of them some hundreds are evaluated, more densely at first. The
    training rows are as many as the steps see, so they are evaluated after every epoch of small batches, and after
    every few of large ones. All of it follows from settings and the number of epochs: a run is the same on any
    machine, and a resumed one goes on as it would have.

    Args:
        regime: of the batches.
        num_rows: of the training.
        has_validation: whether there are held-out rows; without any, training rows take their place.
        every: a fixed number of epochs from one evaluation to the next, of all rows then.
    """

    def __init__(
        self, regime: BatchRegime, num_rows: int, has_validation: bool = True, every: int | None = None
    ) -> None:
        self.regime, self.num_rows = regime, num_rows
        self.has_validation, self.every = has_validation, every

    def is_due(self, num_epochs: int) -> bool:
        """Whether there is an evaluation once so many epochs are done."""
        if self.every is not None:
            return num_epochs % self.every == 0
        if num_epochs == 0 or self.num_steps(num_epochs) > 1:
            return True
        return num_epochs % max(1, min(_MOST, num_epochs // _SPARSER)) == 0

    def following(self, num_epochs: int) -> int:
        """After how many epochs the next evaluation is, when so many are done."""
        num_epochs += 1
        while not self.is_due(num_epochs):
            num_epochs += 1
        return num_epochs

    def gap(self, num_epochs: int) -> int:
        """How many epochs there are since the evaluation before, at one that is due."""
        before = num_epochs - 1
        while before > 0 and not self.is_due(before):
            before -= 1
        return num_epochs - before

    def has_train(self, num_epochs: int) -> bool:
        """Whether training rows are evaluated, too, in the evaluation after so many epochs."""
        if self.every is not None or not self.has_validation or num_epochs <= 1:
            return True
        work = _START * self.num_steps(num_epochs) + _STEP_ROWS * self.num_rows
        period = -(-_SHARE * self.num_rows // work)
        return num_epochs // period > (num_epochs - self.gap(num_epochs)) // period

    def num_steps(self, num_epochs: int) -> int:
        """The steps of the last of so many epochs."""
        return self.regime.num_batches(self.num_rows, num_epochs - 1)
