"""Members that differ in their seeds alone."""

from dataclasses import dataclass

from mlefw.configuration.settings import Node
from mlefw.ensemble.base import Ensemble


@dataclass(kw_only=True)
class Seeds(Ensemble):
    """All members train on the same rows, with other initial weights and another order of rows.

    Each is the run of `mlefw train` with its seed and without an ensemble.

    Source: Lakshminarayanan, Pritzel & Blundell (2017), deep ensembles.
    """

    def settings(self, config: Node, number: int) -> Node:
        """Those of a single run with the seed of the member."""
        return self.whole(super().settings(config, number))

    def whole(self, config: Node) -> Node:
        """Those of a single run."""
        return {**config, "ensemble": {}, "choices": {**config["choices"], "ensemble": "none"}}
