"""Lightning's evaluation between epochs, without what it does around each block of rows."""

from typing import Any

import lightning
from lightning.pytorch.trainer.states import RunningStage, TrainerFn

from mlefw.system.random_state import RandomStream
from mlefw.training.lightning_internals import EvaluationLoop, call_hook
from mlefw.training.module import LikelihoodModule


class Watching(EvaluationLoop):
    """Calls the hooks that start and end an evaluation, and between them hands every block to the module.

    What Lightning does around blocks takes longer than they do: fetching, moving, counting, and collecting what was
    logged. Where a callback looks inside, where a setting limits the blocks, and on several devices or in mixed
    precision, it is done as ever.
    """

    def __init__(self, trainer: lightning.Trainer) -> None:
        super().__init__(trainer, TrainerFn.FITTING, RunningStage.VALIDATING, verbose=False, inference_mode=False)

    def run(self) -> list[Any]:
        """One evaluation of the watched splits."""
        trainer, module = self.trainer, self.trainer.lightning_module
        assert isinstance(module, LikelihoodModule)
        # There may be more evaluations in a run than in the same one that was stopped, or fewer.
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
        for part in in_training:
            part.training = True
        module.on_validation_epoch_end()
        call_hook(trainer, "on_validation_end")
        return []
