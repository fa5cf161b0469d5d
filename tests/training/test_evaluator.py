"""Figures from replayed sums: those of the metrics themselves, on every head that allows it."""

from typing import Any

import lightning
import pytest
import torch

from mlefw.configuration.read import read_settings, settings_of
from mlefw.objective.tape import NotReplayableError, Tape
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.run.build import build_metrics
from mlefw.run.prepare import prepare
from mlefw.run.trainer import build_module, build_trainer
from mlefw.training.evaluator import Evaluator

CASES = {
    "gaussian": ("data=diabetes", "head=gaussian"),
    "heteroscedastic": ("data=diabetes", "head=heteroscedastic"),
    "laplace": ("data=diabetes", "head=laplace", "prior=l2"),
    "huber": ("data=diabetes", "head=huber"),
    "bernoulli": ("data=breast_cancer", "head=bernoulli"),
    "categorical": ("data=iris", "head=categorical"),
    "student_t": ("data=diabetes", "head=student_t", "head.scale=predicted"),
    "gamma": ("data=diabetes", "head=gamma"),
    "dropout": ("data=diabetes", "head=gaussian", "model.dropout=0.5"),
}
ESCAPES = {
    "poisson": ("data=diabetes", "head=poisson"),
    "negative_binomial": ("data=diabetes", "head=negative_binomial"),
}
"""Heads with a metric that looks at values."""


def prepared(settings: tuple[str, ...]) -> tuple[Any, Rows, Any]:
    config = settings_of({**read_settings("train", settings, [], []), "run_dir": "unused"})
    found = prepare(config, None)
    objective = found.estimand.objective.eval()
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(objective.model.model.last.weight, std=0.1, generator=generator)
    return objective, found.data.train, build_metrics(config, objective.head)


def plainly(objective: Any, rows: Rows, metrics: Any) -> dict[str, float]:
    """By the metrics' own methods."""
    values = {}
    with torch.no_grad():
        distribution = objective.head(objective.eta(rows.x, rows.offset))
        for metric in metrics:
            metric.reset()
            metric.update(distribution, rows.y, rows.weight)
            values |= {name: value.item() for name, value in metric.compute().items()}
            metric.reset()
    return values


def moved(objective: Any) -> None:
    with torch.no_grad():
        for p in objective.parameters():
            p.add_(0.01 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))


@pytest.mark.parametrize("name", [*CASES, *ESCAPES])
def test_figures_are_those_of_the_metrics_whatever_the_parameters(name, monkeypatch):
    monkeypatch.setattr("mlefw.training.evaluator._MIN_USES", 1)
    objective, rows, metrics = prepared((CASES | ESCAPES)[name])
    evaluator = Evaluator(objective, metrics)
    for _ in range(4):
        evaluator.add(Batch(rows, 1.0))
        assert not evaluator.is_empty
        found = evaluator.figures()
        assert evaluator.is_empty
        expected = plainly(objective, rows, metrics)
        # Equal to the last bit, NaN included.
        assert [repr(value) for value in found.values()] == [repr(expected[figure]) for figure in found]
        assert found.keys() == expected.keys()
        moved(objective)
    assert bool(evaluator.replay.tapes) == (name in CASES)


@pytest.mark.parametrize("name", ["heteroscedastic", "bernoulli"])
def test_blocks_add_up(name, monkeypatch):
    monkeypatch.setattr("mlefw.training.evaluator._MIN_USES", 1)
    objective, rows, metrics = prepared(CASES[name])
    # In 32 bits the rounding of a row's product depends on the rows beside it.
    objective.double()
    evaluator = Evaluator(objective, metrics)
    expected = plainly(objective, rows, metrics)
    for size in (64, 100, 1000):
        for block in rows.blocks(size):
            evaluator.add(Batch(block, 1.0))
        assert evaluator.figures() == pytest.approx(expected, rel=1e-9)


def test_somebody_who_looks_into_a_layer_sees_every_pass(monkeypatch):
    monkeypatch.setattr("mlefw.training.evaluator._MIN_USES", 1)
    objective, rows, metrics = prepared(CASES["gaussian"])
    evaluator, seen = Evaluator(objective, metrics), []
    objective.model.model.last.register_forward_hook(lambda *_: seen.append(1))
    for _ in range(5):
        evaluator.add(Batch(rows, 1.0))
        evaluator.figures()
    assert len(seen) == 5


def test_in_mixed_precision_weights_are_read_anew(monkeypatch):
    monkeypatch.setattr("mlefw.training.evaluator._MIN_USES", 1)
    objective, rows, metrics = prepared(CASES["gaussian"])
    evaluator = Evaluator(objective, metrics)
    for _ in range(4):
        with torch.autocast("cpu", torch.bfloat16):
            for _ in range(3):
                evaluator.add(Batch(rows, 1.0))
            found = evaluator.figures()
            expected = plainly(objective, rows, metrics)
        assert found["nll_nats"] == pytest.approx(expected["nll_nats"], rel=1e-12)
        moved(objective)


@pytest.mark.parametrize(
    "escape",
    [lambda t: torch.from_numpy(t.numpy() * 2), lambda t: torch.tensor(t.tolist()), lambda t: t * float(t.sum())],
    ids=["numpy", "list", "number"],
)
def test_values_that_leave_a_tape_are_noticed(escape):
    with pytest.raises(NotReplayableError):
        Tape(lambda t: [escape(t) + 1], [torch.ones(3)])


class Counting(lightning.Callback):
    """Counts the blocks that it sees."""

    calls = 0

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Count."""
        Counting.calls += 1


@pytest.mark.filterwarnings("ignore")
def test_a_callback_within_an_evaluation_is_called_and_changes_no_figure(tmp_path, monkeypatch):
    config = settings_of(
        {**read_settings("train", ["trainer.max_epochs=3", "model.hidden=[5]"], [], []), "run_dir": "unused"}
    )
    figures = []
    for callbacks in ([], [Counting()]):
        found = prepare(config, None)
        module = build_module(config, found.estimand, found.rows)
        quiet = config.replaced(logger={}, callback={})
        trainer = build_trainer(quiet, tmp_path, {}, callbacks)
        trainer.fit(module, datamodule=found.rows)
        figures.append(module.figures)
    assert figures[0] == figures[1]
    # Two splits of one block each: before training, and after each of three epochs.
    assert Counting.calls == 8
