"""Evaluation between epochs: Lightning's loop without its work around each block of rows."""

from typing import Any

import lightning
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from mlefw.system.random_state import RandomStream
from mlefw.training.lightning_internals import EvaluationLoop, call_hook
from mlefw.training.module import LikelihoodModule


class PlainEvaluationLoop(EvaluationLoop):
    """Calls the hooks that start and end an evaluation, and between them passes every block to the module.

    Lightning's own work around a block (prefetching, moving, counting, collecting logged values) takes longer than the
    block itself. Lightning's loop runs nevertheless where a callback has a hook within the evaluation, where
    `limit_val_batches` is set, on several devices, and in mixed precision.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        super().__init__(trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False)

    def run(self) -> list[Any]:
        """Evaluate the splits; the list is empty unless Lightning's own loop ran."""
        trainer, module = self.trainer, self.trainer.lightning_module
        assert isinstance(module, LikelihoodModule)
        # A resumed run may evaluate more or less often than one that was never stopped: an evaluation that draws random
        # numbers must not change those of training.
        with RandomStream(module.seed, f"evaluation after step {trainer.global_step}"):
            return self._evaluate(trainer, module)

    def _evaluate(self, trainer: lightning.Trainer, module: LikelihoodModule) -> list[Any]:
        if not module.is_evaluated_plainly or trainer.limit_val_batches != 1.0:
            found: list[Any] = super().run()
            return found
        self.setup_data()
        call_hook(trainer, "on_validation_start")
        in_training = [part for part in module.objective.modules() if part.training]
        module.objective.eval()
        for number, blocks in enumerate(self._combined_loader.flattened):  # type: ignore[union-attr]
            for index, block in enumerate(blocks):
                module.validation_step(block.to(module.device), index, number)
        # Not `train()`, which would also switch the submodules that were in evaluation mode before.
        for part in in_training:
            part.training = True
        module.on_validation_epoch_end()
        call_hook(trainer, "on_validation_end")
        return []
