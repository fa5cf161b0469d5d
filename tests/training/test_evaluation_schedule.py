"""After which epochs a training is evaluated."""

from itertools import pairwise

import pytest

from mlefw.batch.full import FullBatch
from mlefw.batch.growing import GrowingBatch
from mlefw.batch.mini import MiniBatch
from mlefw.batch.replacement import WithReplacement
from mlefw.training.evaluation_schedule import EvaluationSchedule

REGIMES = [MiniBatch(32), MiniBatch(5000), WithReplacement(128), GrowingBatch(32, 2.0, 5), FullBatch()]
each = pytest.mark.parametrize("regime", REGIMES, ids=lambda r: f"{type(r).__name__}-{getattr(r, 'size', 0)}")


def due(evaluation_schedule: EvaluationSchedule, last: int) -> list[int]:
    return [epochs for epochs in range(1, last + 1) if evaluation_schedule.is_due(epochs)]


def test_epochs_of_several_steps_are_all_evaluated():
    assert due(EvaluationSchedule(MiniBatch(32), 1000), 5000) == [*range(1, 5001)]


def test_epochs_of_one_step_are_evaluated_more_and_more_rarely():
    found = due(EvaluationSchedule(FullBatch(), 1000), 5000)
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert found[:19] == [*range(1, 20)]
    assert max(gaps) == 50
    assert all(gap <= max(1, 0.2 * epochs) for epochs, gap in zip(found, gaps, strict=False))
    assert len(found) < 200


def test_a_growing_batch_is_evaluated_more_rarely_once_it_holds_all_rows():
    evaluation_schedule = EvaluationSchedule(GrowingBatch(32, 2.0, 5), 1000)
    found = due(evaluation_schedule, 100)
    # From the 26th epoch on a batch holds all of them.
    assert found[:25] == [*range(1, 26)]
    assert len([epochs for epochs in found if epochs > 50]) < 15


@each
def test_what_follows_and_the_gap_are_those_of_the_epochs_that_are_due(regime):
    evaluation_schedule = EvaluationSchedule(regime, 4000)
    found = due(evaluation_schedule, 400)
    for done in range(300):
        assert evaluation_schedule.following(done) == next(epochs for epochs in found if epochs > done)
    for before, epochs in zip([0, *found], found, strict=False):
        assert evaluation_schedule.gap(epochs) == epochs - before


@each
def test_training_rows_cost_a_small_part_of_the_steps(regime):
    # A pass over n rows costs n, a step of b rows 1000 + 3 b; the pass after the first epoch is not counted.
    evaluation_schedule = EvaluationSchedule(regime, 4000)
    epochs = range(1, 401)
    work = sum(1000 * regime.num_batches(4000, epoch - 1) + 3 * 4000 for epoch in epochs)
    passes = [epoch for epoch in epochs if evaluation_schedule.is_due(epoch) and evaluation_schedule.has_train(epoch)]
    assert passes[0] == 1
    assert (len(passes) - 1) * 4000 <= work / 20
    assert len(passes) > 10


@each
def test_rows_of_many_positions_cost_more_beside_the_start_of_a_step(regime):
    # A pass over n windows of 64 tokens costs 64 n, a step of b windows 1000 + 3 · 64 b.
    schedule = EvaluationSchedule(regime, 4000, row_cost=64)
    work = sum(1000 * regime.num_batches(4000, epoch - 1) + 3 * 64 * 4000 for epoch in range(1, 401))
    passes = [epoch for epoch in range(1, 401) if schedule.is_due(epoch) and schedule.has_train(epoch)]
    assert passes[0] == 1
    assert (len(passes) - 1) * 64 * 4000 <= work / 20
    assert len(passes) > 5


def test_small_batches_evaluate_training_rows_after_each_epoch():
    evaluation_schedule = EvaluationSchedule(MiniBatch(32), 266)
    assert all(evaluation_schedule.has_train(epochs) for epochs in range(1, 100))


def test_without_held_out_rows_training_rows_are_always_evaluated():
    evaluation_schedule = EvaluationSchedule(MiniBatch(2000), 4000, has_validation=False)
    assert all(evaluation_schedule.has_train(epochs) for epochs in range(1, 100))


def test_a_fixed_number_of_epochs_wins():
    evaluation_schedule = EvaluationSchedule(FullBatch(), 4000, every=7)
    assert due(evaluation_schedule, 30) == [7, 14, 21, 28]
    assert evaluation_schedule.following(0) == evaluation_schedule.following(6) == 7
    assert evaluation_schedule.gap(14) == 7
    assert evaluation_schedule.has_train(14)
