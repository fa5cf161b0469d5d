"""`Experiment`, the interface of an experiment."""

from abc import ABC, abstractmethod

from mlefw.report.findings import Findings


class Experiment(ABC):
    """An experiment with its settings, run by `mlefw train experiment=NAME`."""

    @abstractmethod
    def run(self) -> Findings:
        """Run the experiment; returns measured and predicted values, a conclusion, and pictures."""
