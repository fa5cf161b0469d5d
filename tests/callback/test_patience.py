"""Patience is counted in epochs, whether they are evaluated or not."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mlefw.batch.full import FullBatch
from mlefw.batch.mini import MiniBatch
from mlefw.callback.patience import StopWithoutProgress
from mlefw.training.evaluation_schedule import EvaluationSchedule
from mlefw.training.module import LikelihoodModule


def module(evaluation_schedule: EvaluationSchedule) -> Any:
    one = LikelihoodModule(torch.nn.Linear(1, 1), None, None, None, {}, evaluation_schedule)  # type: ignore[arg-type]
    one.watched, one.evaluated_step, one.view = ["validation"], 0, SimpleNamespace(global_step=0, should_stop=False)
    return one


def evaluated(one: Any, epoch: int, nll: float) -> Any:
    """What trains the module, at the end of an epoch with an evaluation."""
    one.view.current_epoch, one.figures = epoch, {"validation": {"nll_nats": nll}}
    return one.view


def stopped_at(evaluation_schedule: EvaluationSchedule, patience: int, best: int) -> int:
    """After how many epochs a run ends whose NLL falls until `best` epochs are done, and rises then."""
    stopping, one = StopWithoutProgress(patience), module(evaluation_schedule)
    done = 0
    while True:
        done = evaluation_schedule.following(done)
        now = evaluated(one, done - 1, abs(done - best) + 1.0)
        stopping.on_train_epoch_end(now, one)
        if now.should_stop:
            return done


@pytest.mark.parametrize(("patience", "best"), [(5, 8), (50, 200), (50, 1000), (3, 100)])
def test_a_run_ends_at_the_first_evaluation_that_is_patience_epochs_past_the_best(patience, best):
    assert stopped_at(EvaluationSchedule(MiniBatch(2), 100), patience, best) == best + patience
    sparse = EvaluationSchedule(FullBatch(), 100)
    assert sparse.is_due(best)
    assert stopped_at(sparse, patience, best) == sparse.following(best + patience - 1)


def test_an_evaluation_that_was_not_due_counts_for_nothing():
    stopping, one = StopWithoutProgress(1), module(EvaluationSchedule(FullBatch(), 100))
    for epoch in (100, 102, 104):
        now = evaluated(one, epoch, float(epoch))
        stopping.on_train_epoch_end(now, one)
        assert not now.should_stop
    assert stopping.wait_count == 0


def test_a_plateau_is_counted_in_epochs():
    evaluation_schedule = EvaluationSchedule(FullBatch(), 100)
    one = module(evaluation_schedule)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=0.5, patience=20)
    one.scheduler = scheduler
    done, halved = 0, []
    while done < 400:
        done = evaluation_schedule.following(done)
        evaluated(one, done - 1, max(0.0, 200.0 - done))
        before = scheduler.get_last_lr()[0] if hasattr(scheduler, "_last_lr") else 1.0
        one.on_train_epoch_end()
        if scheduler.get_last_lr()[0] < before:
            halved.append(done)
    # The NLL is least from 200 on; evaluations are 20 to 40 epochs apart there.
    assert halved[0] == evaluation_schedule.following(200 + 20)
    assert all(later - earlier > 20 for earlier, later in pairwise(halved))


def test_checkpoints_of_earlier_versions_are_taken_up():
    """The names under which Lightning's `EarlyStopping`, from which the callback was derived, stored its state."""
    stored = {
        "wait_count": 2,
        "stopped_epoch": 0,
        "best_score": torch.tensor(1.5),
        "patience": 7,
        "stopping_reason": 0,
        "stopping_reason_message": None,
    }
    stopping, one = StopWithoutProgress(3), module(EvaluationSchedule(MiniBatch(2), 100))
    assert stopping.state_key == "StopWithoutProgress{'monitor': 'validation/nll_nats', 'mode': 'min'}"
    stopping.load_state_dict(stored)
    assert stopping.state_dict() == stored
    stopping.patience = 3
    stopping.on_train_epoch_end(evaluated(one, 4, 1.5), one)
    assert one.view.should_stop
    assert stopping.state_dict() == stored | {
        "wait_count": 3,
        "stopped_epoch": 4,
        "patience": 3,
        "stopping_reason": 3,
        "stopping_reason_message": "Monitored metric validation/nll_nats did not improve in the last 3 records."
        " Best score: 1.500. Signaling Trainer to stop.",
    }
