"""`Average`, the interface of an average of the weights over optimiser steps."""

from abc import ABC, abstractmethod


class Average(ABC):
    """A weighted average of the weights over the steps of a training.

    After each step `average ← average + share · (weights − average)`. Optimiser steps continue from the weights;
    evaluations, checkpoints and predictions use the average.
    """

    @abstractmethod
    def share(self, progress: float, length: float) -> float:
        """The share of the newest weights in the average, above 0 and at most 1.

        It has to depend on its arguments alone, so that a resumed run continues as an uninterrupted one. At the first
        step, where `progress == length`, it should be 1, because there is no average before it.

        Args:
            progress: epochs since the start of the training at the end of the step: 0.1 after the first of ten steps
                of an epoch.
            length: length of the step in epochs: one over the number of steps of its epoch.
        """
