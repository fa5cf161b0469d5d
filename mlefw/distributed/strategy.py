"""Lightning's strategy for several devices whose gradients the step adds up itself."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from mlefw.distributed import ranks


class SummedGradients(DDPStrategy):
    """Lightning's processes and their group, around a module that is not wrapped.

    Each process computes its part of the sum over a batch, and the step adds the parts up: a prior then counts once,
    clipping and a line search see the whole gradient, and a batch need not divide evenly.
    """

    def __init__(self) -> None:
        # The first process may take its time for the exact estimates before it trains.
        super().__init__(timeout=timedelta(days=7))

    def configure_ddp(self) -> None:
        """Begin with the same weights everywhere."""
        assert self.lightning_module is not None
        ranks.copy_first([t.detach() for t in self.lightning_module.state_dict().values()])

    def barrier(self, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Wait for the others, but not after a checkpoint: the first process alone decides when one is due."""
        if name != "Trainer.save_checkpoint":
            super().barrier(name, *args, **kwargs)
