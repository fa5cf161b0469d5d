"""An ensemble whose members differ in their seeds only."""

from dataclasses import dataclass

from mlefw.configuration.settings import Node
from mlefw.ensemble.base import Ensemble


@dataclass(kw_only=True)
class Seeds(Ensemble):
    """All members train on the same rows, with different initial weights and orders of rows.

    Each member is what `mlefw train` with its seed and without an ensemble would be.

    Source: Lakshminarayanan, Pritzel & Blundell (2017), deep ensembles.
    """

    def settings(self, config: Node, number: int) -> Node:
        """The settings of a single run with the seed of the member."""
        return self.whole(super().settings(config, number))

    def whole(self, config: Node) -> Node:
        """The settings of a single run, without an ensemble."""
        return {**config, "ensemble": {}, "choices": {**config["choices"], "ensemble": "none"}}
