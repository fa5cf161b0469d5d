"""What an experiment is."""

from abc import ABC, abstractmethod

from mlefw.report.findings import Findings


class Experiment(ABC):
    """Settings by which one idea is tried, and what comes of it: `mlefw train experiment=NAME`."""

    @abstractmethod
    def run(self) -> Findings:
        """Do it, and say what was measured and what was predicted."""
