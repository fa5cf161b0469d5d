"""Lightning still has the names that it does not promise to keep, and they do what mlefw takes them to do."""

import lightning
import pytest
from lightning.fabric.loggers import logger
from lightning.pytorch.loops import evaluation_loop
from lightning.pytorch.trainer import call
from lightning.pytorch.utilities import model_helpers

from mlefw.training import lightning_internals

WHERE = "mlefw/training/lightning_internals.py has to follow"


@pytest.fixture
def trainer() -> lightning.Trainer:
    return lightning.Trainer(
        logger=False, enable_checkpointing=False, accelerator="cpu", max_epochs=1, enable_progress_bar=False
    )


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (evaluation_loop, "_EvaluationLoop"),
        (call, "_call_callback_hooks"),
        (call, "_call_lightning_module_hook"),
        (model_helpers, "is_overridden"),
        (logger, "rank_zero_experiment"),
    ],
)
def test_a_name_is_where_it_was(place: object, name: str) -> None:
    assert callable(getattr(place, name, None)), f"Lightning has moved {name}: {WHERE}"


def test_the_loops_hold_what_is_replaced_in_them(trainer: lightning.Trainer) -> None:
    loop = trainer.fit_loop.epoch_loop
    assert isinstance(loop.val_loop, evaluation_loop._EvaluationLoop), f"Lightning has moved val_loop: {WHERE}"
    assert callable(loop._broadcast_sigterm_tensor), f"Lightning has moved _broadcast_sigterm_tensor: {WHERE}"
    own = lightning_internals.EvaluationLoop(
        trainer, loop.val_loop._trainer_fn, loop.val_loop._stage, verbose=False, inference_mode=False
    )
    lightning_internals.evaluate_by(trainer, own)
    assert trainer.fit_loop.epoch_loop.val_loop is own


def test_counts_are_those_that_the_trainer_tells(trainer: lightning.Trainer) -> None:
    module = lightning.LightningModule()
    module.automatic_optimization = False
    trainer.strategy._lightning_module = module
    lightning_internals.count_steps(trainer, 7)
    assert trainer.global_step == 7, f"Lightning counts steps elsewhere: {WHERE}"
    lightning_internals.count_epoch(trainer)
    assert trainer.current_epoch == 1, f"Lightning counts epochs elsewhere: {WHERE}"
    lightning_internals.tell_loggers(trainer, 7)
    assert trainer.fit_loop.epoch_loop._batches_that_stepped == 6, f"Lightning logs at another step: {WHERE}"
    lightning_internals.set_place(trainer, 3, 40)
    assert (trainer.current_epoch, trainer.global_step) == (3, 40), f"Lightning keeps its place elsewhere: {WHERE}"


def test_hooks_of_callbacks_and_module_are_called_in_order(trainer: lightning.Trainer) -> None:
    called: list[str] = []

    class Callback(lightning.Callback):
        def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
            called.append("callback")

    class Module(lightning.LightningModule):
        def on_validation_start(self) -> None:
            called.append("module")

    module = Module()
    trainer.callbacks = [Callback()]  # type: ignore[attr-defined]
    trainer.strategy._lightning_module = module
    lightning_internals.call_hook(trainer, "on_validation_start")
    assert called == ["callback", "module"], f"Lightning calls hooks in another way: {WHERE}"
