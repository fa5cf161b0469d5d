"""Callbacks and the module read of what trains a network no more than `TrainerView` has."""

import inspect
from types import SimpleNamespace
from typing import Any

import lightning
import torch

from mlefw.batch.full import FullBatch
from mlefw.sweep.population.member import Member
from mlefw.training.evaluation_schedule import EvaluationSchedule
from mlefw.training.module import LikelihoodModule
from mlefw.training.trainer_view import TrainerView

NAMES = {name for name in (*vars(TrainerView), *TrainerView.__annotations__) if not name.startswith("_")}


def test_lightning_s_trainer_and_a_member_of_a_group_have_every_name() -> None:
    trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    assert len(NAMES) == 7
    fields = {*Member.__dataclass_fields__, *vars(Member)}
    assert fields >= NAMES
    assert all(hasattr(trainer, name) for name in NAMES)
    assert [*inspect.signature(trainer.save_checkpoint).parameters][:2] == ["filepath", "weights_only"]


def test_a_module_counts_as_its_view_does() -> None:
    one: Any = LikelihoodModule(torch.nn.Linear(1, 1), None, None, None, {}, EvaluationSchedule(FullBatch(), 4))  # type: ignore[arg-type]
    assert (one.current_epoch, one.global_step) == (0, 0)
    one.view = SimpleNamespace(current_epoch=3, global_step=7)
    assert (one.current_epoch, one.global_step) == (3, 7)
