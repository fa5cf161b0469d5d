"""The step: replayed kernels against autograd, chunks, hosts left alone, the compiler."""

import shutil
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mlefw.batch.base import BatchRegime
from mlefw.batch.full import FullBatch
from mlefw.batch.growing import GrowingBatch
from mlefw.batch.mini import MiniBatch
from mlefw.batch.replacement import WithReplacement
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized
from mlefw.system.random_state import generator as generator_of
from mlefw.training.datamodule import RowsModule
from mlefw.training.step import Step

HEADS: dict[str, Callable[[], Head]] = {
    "gaussian": GaussianHead,
    "heteroscedastic": lambda: GaussianHead("predicted"),
    "laplace": LaplaceHead,
    "bernoulli": BernoulliHead,
    "poisson": PoissonHead,
    "categorical": lambda: CategoricalHead(3),
}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "momentum": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, fused=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=1e-2, fused=True),
    "loop": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False),
}


def objective(head: str = "heteroscedastic", prior: Prior | None = None, dropout: float = 0.0) -> Objective:
    torch.manual_seed(0)
    made = HEADS[head]()
    made.set_units(1.0, 2.0)
    mean, scale = torch.full((3,), 0.5).double(), torch.full((3,), 2.0).double()
    model = Standardized(Mlp(3, made.eta_dim, hidden=[8], dropout=dropout), mean, scale)
    return Objective(model, made, prior or NoPrior(), 100.0)


def batches(num_steps: int, classes: int = 2) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    for step in range(num_steps):
        n = 7 if step % 5 else 4
        y = torch.randint(classes, (n,), generator=generator)
        offset = torch.randn(n, generator=generator).double()
        weight = torch.rand(n, generator=generator).double()
        yield Batch(Rows(torch.randn(n, 3, generator=generator).double(), y.double(), weight, offset), 14.0)


def trained(
    target: Objective, optimizer: str, replay: bool, clip_norm: float, steps: int = 20, compile: bool = False
) -> tuple[list[Tensor], Step]:
    """Losses and parameters after some steps with a change of the learning rate among them."""
    step, made = Step(target, clip_norm, compile=compile), OPTIMIZERS[optimizer](target.parameters())
    step.gradient.is_replayable &= replay
    torch.manual_seed(3)
    losses = []
    for count, batch in enumerate(batches(steps)):
        if isinstance(target.head, CategoricalHead):
            batch = batch._replace(rows=batch.rows._replace(y=batch.rows.y.long()))
        if count == steps // 2:
            made.param_groups[0]["lr"] /= 2
        losses.append(step(batch, made, made))
    return [*losses, *(p.detach() for p in target.parameters())], step


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prior", [NoPrior(), L2Prior(0.5), L1Prior(0.5)], ids=["none", "l2", "l1"])
def test_a_replayed_step_is_the_step_of_autograd_bit_for_bit(head, prior):
    for clip_norm, dropout in ((0.0, 0.0), (0.1, 0.3)):
        replayed, step = trained(objective(head, prior, dropout), "adam", True, clip_norm)
        plain, _ = trained(objective(head, prior, dropout), "adam", False, clip_norm)
        assert len(step.gradient.tapes) == 2
        assert len(step.updates) == 1
        assert all(torch.equal(one, other) for one, other in zip(replayed, plain, strict=True))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_steps_as_it_does_by_itself(optimizer):
    replayed, _ = trained(objective(), optimizer, True, 0.1)
    plain, _ = trained(objective(), optimizer, False, 0.1)
    assert all(torch.equal(one, other) for one, other in zip(replayed, plain, strict=True))


def test_a_fused_optimizer_agrees_with_the_loop_to_rounding():
    fused, loop = (trained(objective(), name, True, 1.0)[0] for name in ("adam", "loop"))
    for one, other in zip(fused, loop, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-4, atol=1e-6)


def test_the_first_step_of_a_replayed_adam_is_a_step_of_the_learning_rate():
    target = objective()
    before = [p.detach().clone() for p in target.parameters()]
    trained(target, "adam", True, 0.0, steps=1)
    moved = [(p - then).abs().max() for p, then in zip(target.parameters(), before, strict=True) if p.numel()]
    assert max(moved).item() == pytest.approx(5e-3, rel=1e-3)


def test_a_model_that_looks_at_values_is_left_to_autograd():
    class Looks(nn.Module):
        replayable = True

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)

    torch.manual_seed(0)
    target = Objective(Looks(), GaussianHead("predicted"), NoPrior(), 100.0).double()
    values, step = trained(target, "adam", True, 0.0)
    assert not step.gradient.is_replayable
    assert all(bool(torch.isfinite(value).all()) for value in values)


def test_foreign_code_is_replayed_only_if_it_says_so():
    class Counts(nn.Linear):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) * (1 + self.calls)

    target = Objective(Counts(3, 2), GaussianHead("predicted"), NoPrior(), 100.0).double()
    _, step = trained(target, "adam", True, 0.0)
    assert target.model.calls == 20
    assert not step.gradient.tapes


class Watch(TorchDispatchMode):
    """Counts the values of tensors that Python asks for."""

    asked = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.asked += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_a_value():
    target = objective(prior=L2Prior(0.5))
    optimizer = OPTIMIZERS["adam"](target.parameters())
    step, steps = Step(target, 1.0), list(batches(20))
    for batch in steps[:10]:
        step(batch, optimizer, optimizer)
    with Watch() as watch:
        for batch in steps[10:]:
            step(batch, optimizer, optimizer)
    assert watch.asked == 0


@pytest.mark.parametrize(
    "regime",
    [MiniBatch(4), WithReplacement(4), WithReplacement(23), GrowingBatch(4, 2.0, 1), FullBatch()],
    ids=lambda r: type(r).__name__,
)
def test_chunks_hold_the_batches_of_the_epoch(regime: BatchRegime):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(23, 2, generator=generator).double()
    rows = Rows(x, x[:, 0].clone(), torch.ones(23).double(), torch.zeros(23).double())
    for epoch in (0, 2):
        draws = generator_of(5, f"order of rows in epoch {epoch}")
        expected = [(rows.take(index), scale) for index, scale in regime.batches(23, epoch, draws)]
        for length in (1, 3, 100):
            module = RowsModule({"train": rows}, regime, 5)
            chunks = module.chunks(range(epoch, epoch + 1), lambda length=length: length)
            got = [batch for chunk in chunks for batch in chunk.batches()]
            assert [batch.scale for batch in got] == [scale for _, scale in expected]
            for batch, (part, _) in zip(got, expected, strict=True):
                assert all(torch.equal(one, other) for one, other in zip(batch.rows, part, strict=True))


@pytest.mark.parametrize(
    "regime", [MiniBatch(9), WithReplacement(4), GrowingBatch(4, 2.0, 1), FullBatch()], ids=lambda r: type(r).__name__
)
@pytest.mark.parametrize("length", [1, 2, 5, 100])
def test_chunks_of_several_epochs_are_those_of_each_and_say_where_they_end(regime: BatchRegime, length: int):
    x = torch.randn(23, 2, generator=torch.Generator().manual_seed(2)).double()
    rows = Rows(x, x[:, 0].clone(), torch.ones(23).double(), torch.zeros(23).double())
    module = RowsModule({"train": rows}, regime, 5)
    single = [[*module.batches(epoch)] for epoch in range(2, 7)]
    ends, got = [], []
    for chunk in module.chunks(range(2, 7), lambda: length):
        assert 1 <= len(chunk.spans) <= length
        ends += [len(got) + end + 1 for end in sorted(chunk.epoch_ends)]
        got += [*chunk.batches()]
    assert ends == np.cumsum([len(batches) for batches in single])[:-1].tolist()
    for batch, expected in zip(got, (batch for batches in single for batch in batches), strict=True):
        assert batch.scale == expected.scale
        assert all(torch.equal(one, other) for one, other in zip(batch.rows, expected.rows, strict=True))


def test_features_standardised_once_are_those_of_the_model():
    target = objective()
    nn.init.normal_(target.model.model.last.weight)
    for batch in batches(3):
        ready = batch._replace(rows=batch.rows._replace(x=target.model.standardize(batch.rows.x)), standardized=True)
        assert torch.equal(target.descent(ready), target.descent(batch))


compiling = pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")


@pytest.mark.slow
@compiling
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("optimizer", "prior"), [("adam", L2Prior(0.5)), ("adamw", NoPrior()), ("momentum", L1Prior(0.5))]
)
def test_a_compiled_step_is_the_same_to_rounding(optimizer, prior, monkeypatch):
    monkeypatch.setattr("mlefw.training.compiled_step._MIN_USES", 1)
    compiled, step = trained(objective(prior=prior), optimizer, True, 1.0, compile=True)
    plain, _ = trained(objective(prior=prior), optimizer, True, 1.0)
    assert step.compiled is not None
    assert len(step.compiled.steps) == 2
    for one, other in zip(compiled, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@compiling
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_step_leaves_the_state_of_the_optimizer_as_others_do(monkeypatch):
    monkeypatch.setattr("mlefw.training.compiled_step._MIN_USES", 3)
    target, plain = objective(), objective()
    optimizer, other = (OPTIMIZERS["adam"](o.parameters()) for o in (target, plain))
    step, reference, batch = Step(target, 1.0, compile=True), Step(plain, 1.0), next(batches(1))
    for count in range(12):
        if count == 8:
            # Another rate is no other graph.
            monkeypatch.setattr("torch._dynamo.config.error_on_recompile", True)
        for one in (optimizer, other):
            one.param_groups[0]["lr"] = 1e-2 / (1 + count)
        assert step(batch, optimizer, optimizer).item() == pytest.approx(
            reference(batch, other, other).item(), rel=1e-5
        )
    assert step.compiled is not None
    assert len(step.compiled.steps) == 1
    torch.testing.assert_close(optimizer.state_dict()["state"], other.state_dict()["state"], rtol=1e-4, atol=1e-7)


def test_every_shape_is_compiled_without_checks_at_each_call(monkeypatch):
    found = []

    def compile_nothing(run, *, options, **_):
        # As torch does, it takes out what it reads.
        found.append((options.pop("size_asserts"), options.pop("guard_filter_fn")(["a guard"])))
        return run

    monkeypatch.setattr("mlefw.training.compiled_step._MIN_USES", 1)
    monkeypatch.setattr("torch.compile", compile_nothing)
    trained(objective(), "adam", True, 1.0, compile=True)
    assert found == [(False, [False])] * 2


def test_without_a_compiler_there_is_a_warning_and_the_same_result(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr("mlefw.training.compiled_step._MIN_USES", 3)
    monkeypatch.setattr("torch.compile", fails)
    with pytest.warns(UserWarning, match="no working C"):
        compiled, _ = trained(objective(), "adam", True, 1.0, compile=True)
    plain, _ = trained(objective(), "adam", True, 1.0)
    assert all(torch.equal(one, other) for one, other in zip(compiled, plain, strict=True))
