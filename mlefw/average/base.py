"""What an average of the weights is: how much of it each optimiser step replaces."""

from abc import ABC, abstractmethod


class Average(ABC):
    """An average of the weights over the steps of a training, which is what the training hands on.

    After each step `average ← average + share · (weights − average)`. Steps start from the weights themselves;
    whatever is evaluated, compared, kept and reported is the average.
    """

    @abstractmethod
    def share(self, progress: float, length: float) -> float:
        """The share of the newest weights in the average, above 0 and at most 1.

        It depends on its arguments alone, so that a resumed run goes on as it would have.

        Args:
            progress: epochs since the start of the training, the step just taken included: the first of ten steps of
                an epoch ends at 0.1.
            length: of the step in epochs, one over the number of steps of its epoch. A share of 1 at the first step,
                where `progress == length`, leaves nothing of the average before it, which has no meaning.
        """
