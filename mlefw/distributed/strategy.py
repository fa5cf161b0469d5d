"""Strategies of Lightning for several devices, with gradients that are summed in the step, not by Lightning."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from mlefw.distributed import ranks, sharding


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


class ShardedParameters(SummedGradients):
    """Lightning's processes, with the parameters of the network split over them by torch's `fully_shard`.

    Lightning's own strategies of this kind are not used: one refuses CPUs, the other (`ModelParallelStrategy`) 64-bit
    floats, and both average gradients. Checkpoints have the tensors of the whole model, as those of a single process.

    Args:
        network: the part of the module whose parameters are split; its forward pass is called as a whole.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def model_to_device(self) -> None:
        """Split the network before the rest of the module is moved, so that no device has to hold all of it."""
        sharding.shard(self.network, self.root_device)
        super().model_to_device()

    def configure_ddp(self) -> None:
        """Give all processes those tensors of rank 0 that are not split."""
        assert self.lightning_module is not None
        tensors = self.lightning_module.state_dict().values()
        ranks.broadcast([t.detach() for t in tensors if not sharding.is_sharded(t)])

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Gather all tensors in the first process, which writes them; every process has to call it."""
        super().save_checkpoint(sharding.whole(checkpoint), filepath, storage_options)

    def load_optimizer_state_dict(self, checkpoint: Any) -> None:
        """Give each process its share of the state of the optimisers."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            sharding.load_optimizer(optimizer, state)

    def teardown(self) -> None:
        """Leave the network on its devices, which its last checkpoint is gathered from."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()
