"""A strategy of Lightning for several devices, with gradients that are summed in the step, not by Lightning."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy

from mlefw.distributed import ranks


class SummedGradients(DDPStrategy):
    """Lightning's processes and process group, without torch's DistributedDataParallel, which averages gradients.

    Each process computes its part of the sum over a batch, and `mlefw.training.step` sums the parts. So the prior
    counts once, clipping and line search see the whole gradient, and batches need not divide evenly among processes.
    """

    def __init__(self) -> None:
        # The other processes wait while rank 0 computes exact estimates, which may take hours.
        super().__init__(timeout=timedelta(days=7))

    def configure_ddp(self) -> None:
        """Give all processes the weights of rank 0, where DDPStrategy would wrap the module."""
        assert self.lightning_module is not None
        ranks.broadcast([t.detach() for t in self.lightning_module.state_dict().values()])

    def barrier(self, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        """Wait for the other processes, but not after a checkpoint: rank 0 alone decides when to write one."""
        if name != "Trainer.save_checkpoint":
            super().barrier(name, *args, **kwargs)
