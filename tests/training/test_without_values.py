"""Training and evaluation on torch's `meta` device, whose tensors have a shape, a type and a device but no values.

Reading a value there is an error, as is a shape that depends on values, or a tensor on the CPU beside one of the
device. So what runs here runs on a GPU without waiting for it. Where the amount of work depends on values, it is asked
for by `awaited`, and `WAITING` says of which members.
"""

import itertools
import sys
from collections.abc import Callable, Iterator

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.distributions import Distribution, NegativeBinomial, Poisson

from mlefw.configuration.groups import members
from mlefw.configuration.instantiate import instantiate
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import Settings
from mlefw.distribution import quantile, special
from mlefw.distribution.awaited import awaited
from mlefw.distribution.censored import Censored
from mlefw.distribution.crps import row_crps
from mlefw.distribution.joint import Joint
from mlefw.distribution.trials import GivenTrials
from mlefw.head.base import Head
from mlefw.metric.nll import Nll
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized
from mlefw.run import build
from mlefw.run.network import build_model
from mlefw.schema.target import Target
from mlefw.training.evaluator import Evaluator
from mlefw.training.step import Step

NUM_ROWS, NUM_FEATURES = 5, 3
ONES = torch.zeros(NUM_FEATURES).double(), torch.ones(NUM_FEATURES).double()
"""Means and standard deviations of the features."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "multitask": ("head.tasks.a=gaussian", "head.tasks.b=poisson"),
    "multivariate_gaussian": (),
    "censored": (),
}
"""Heads of two target columns, with the settings that they need."""
WAITING = {
    "beta_binomial": "its distribution function is a sum over the counts up to the largest number of trials",
    "binomial": "the CRPS is a sum over the counts that are likely in some row",
    "trials of each row": "such a sum",
    "hurdle": "such a sum",
    "truncated": "such a sum",
    "truncated counts": "such a sum",
    "mixture of counts": "such a sum",
    "transformation": "Newton's method for a quantile ends after some six of up to a hundred steps",
    "tweedie": "Newton's method for a quantile ends after some eight of up to eighty steps, each a series",
}
"""Heads of which a value is awaited, and why: a fixed amount of work would take several times as long as to wait."""

KINDS: dict[str, tuple[str, ...]] = {
    "mixture of counts": ("head=mixture", "head.component=poisson", "metric=count"),
    "hurdle of amounts": ("head=hurdle", "head.component=gamma", "metric=amounts"),
    "truncated density": ("head=truncated", "head.component=gaussian", "head.lower=0", "metric=continuous"),
    "truncated counts": ("head=truncated", "head.component=poisson", "head.lower=3"),
    "trials of each row": ("head=binomial", "head.trials=7"),
    "negative binomial without a shared dispersion": ("head=negative_binomial", "head.variance=nb1"),
}
"""Heads whose figures are found in another way than by the settings of their file."""

HEADS = {name: (f"head={name}", *SETTINGS.get(name, ())) for name in members("head")} | KINDS
LOSSES = {
    "plain": "gaussian",
    "beta_nll": "heteroscedastic",
    "crps": "gaussian",
    "label_smoothing": "categorical",
    "focal": "categorical",
    "class_weights": "categorical",
}
"""Every loss, with a head that it is for."""
TABLE = (RowShape((NUM_FEATURES,)), torch.float32)
MODELS = {
    "linear": TABLE,
    "mlp": TABLE,
    "residual": TABLE,
    "cnn": (RowShape((2, 5, 6)), torch.float32),
    "transformer": (RowShape((6,), (6,), 7, is_sequential=True), torch.int64),
}
"""Every model, with the rows that it is for."""


@pytest.fixture(autouse=True)
def _shapes_of_binomial_draws() -> Iterator[None]:
    """A draw of torch that has a kernel for each real device, and none that tells the shape alone."""
    library = torch.library.Library("aten", "IMPL")
    library.impl("binomial", lambda count, prob, generator=None: torch.empty_like(count), "Meta")
    yield
    library._destroy()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of few steps, and incomplete functions of few kernels: each takes torch 0.1 ms on `meta`.

    `test_incomplete_functions` runs these functions as they are.
    """
    monkeypatch.setattr(special, "gamma_tails", lambda a, x: (a * x, a + x))
    monkeypatch.setattr(special, "beta_tails", lambda a, b, x, other: (a * b * x, a + b * other))
    monkeypatch.setattr(quantile, "STEPS", 2)
    monkeypatch.setattr(quantile, "HALVINGS", 2)


def test_incomplete_functions() -> None:
    a, x = torch.ones(NUM_ROWS, device="meta").double(), torch.ones(3, 1, device="meta").double()
    found = [*special.gamma_tails(a, x), *special.beta_tails(a, a, x, x), special.log_rising(a, a)]
    assert {value.device.type for value in found} == {"meta"}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The tensors whose values are awaited: their truth is no at first and yes the second time, their number 0 or 1."""
    found: list[Tensor] = []
    answers = itertools.cycle([0.0, 1.0])

    def answered(value: Tensor) -> float:
        found.append(value)
        return next(answers)

    for module in list(sys.modules.values()):
        if getattr(module, "awaited", None) is awaited:
            monkeypatch.setattr(module, "awaited", answered)
    return found


def settings(*given: str) -> Settings:
    return settings_of(read_settings("train", list(given), [], []))


def head_of(config: Settings) -> Head:
    kind = build.head_kind(config.head).target
    labels = {"binary": ("0", "1"), "labels": ("0", "1", "2"), "ordered": ("0", "1", "2")}.get(kind)
    targets = [Target("a", kind, labels), Target("b", kind, labels)]
    several = config.head["_target_"].split(".")[2] in SETTINGS
    return build.head_of(config.head, targets if several else targets[:1])


def batch_of(head: Head, shape: RowShape = TABLE[0], kind: torch.dtype = TABLE[1]) -> Batch:
    x = torch.zeros(NUM_ROWS, *shape.input_shape, dtype=kind)
    batch = (NUM_ROWS, *shape.positions)
    y = torch.zeros(
        *batch, *head.event_shape, dtype=torch.int64 if head.target in ("labels", "ordered") else torch.float64
    )
    return Batch(Rows(x, y, torch.ones(batch).double(), torch.zeros(batch).double()), 1.0).to("meta")


def step_of(objective: Objective, batch: Batch, max_rows: int = 0) -> None:
    """Two steps of Adam, the second with the state that the first made."""
    objective.to("meta").train()
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.1)
    step = Step(objective, clip_norm=1.0, max_rows=max_rows)
    for count in range(2):
        loss = step(batch, optimizer, optimizer, count=count)
        assert loss.device.type == "meta"
    assert {p.device.type for p in (*objective.parameters(), *objective.buffers())} == {"meta"}


def univariate(distribution: Distribution) -> list[tuple[Distribution, Callable[[Tensor], Tensor]]]:
    """The distributions of single numbers that a prediction consists of, and how each finds its numbers in y."""
    if isinstance(distribution, Joint):
        return [(part, lambda y, k=k: y[..., k]) for k, part in enumerate(distribution.marginals)]  # type: ignore[misc]
    if isinstance(distribution, Censored):
        return [(distribution.latent, lambda y: y[..., 0])]
    if isinstance(distribution, GivenTrials):
        return [(distribution.given(torch.ones(NUM_ROWS, device="meta").double()), lambda y: y[..., 0])]
    return [(distribution, lambda y: y)]


def predict(distribution: Distribution, y: Tensor) -> None:
    """All that a prediction is asked for."""
    drawn = distribution.sample(torch.Size([2]))
    assert (drawn.shape, drawn.device) == ((2, *y.shape), y.device)
    for one, of in univariate(distribution):
        found = [
            quantile.quantile(one, 0.3),
            quantile.quantile(one, torch.zeros(NUM_ROWS, dtype=torch.float64, device="meta")),
            *quantile.interval(one, 0.9),
            quantile.median(one),
            *quantile.pit_bounds(one, of(y)),
            one.log_prob(of(y)),
        ]
        if hasattr(one, "mean"):
            found += [row_crps(one, of(y)), one.mean, one.variance]
        assert {(value.shape, value.device.type) for value in found} == {((NUM_ROWS,), "meta")}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", HEADS)
def test_a_head_is_trained_evaluated_and_asked(name: str, asked: list[Tensor]) -> None:
    config = settings(*HEADS[name])
    head = head_of(config)
    metrics = build.build_metrics(config, head)
    objective = Objective(Standardized(Linear(NUM_FEATURES, head.eta_dim), *ONES), head, NoPrior(), 100.0)
    batch = batch_of(head)
    step_of(objective, batch)
    assert not asked, "a step of training waits for the device"
    for metric in metrics:
        metric.to("meta")
    evaluator = Evaluator(objective.eval(), metrics)
    evaluator.add(batch)
    assert all(total.device.type == "meta" for total in evaluator.accumulator.sums or [])
    with torch.no_grad():
        predict(head(objective.eta(batch.rows.x, batch.rows.offset)), batch.rows.y)
    assert bool(asked) == (name in WAITING)


@pytest.mark.parametrize("name", members("model"))
@pytest.mark.parametrize("max_rows", [0, 2])
def test_a_model_is_trained_in_one_pass_or_in_slices(name: str, max_rows: int) -> None:
    shape, kind = MODELS[name]
    head = head_of(settings("head=categorical"))
    model = build_model(settings(f"model={name}").model, shape, head.eta_dim)
    objective = (
        Objective(Standardized(model, *ONES), head, NoPrior(), 100.0)
        if shape is TABLE[0]
        else Objective(model, head, NoPrior(), 100.0)
    )
    batch = batch_of(head, shape, kind)
    step_of(objective, batch, max_rows)
    Evaluator(objective.eval(), [Nll().to("meta")]).add(batch)


@pytest.mark.parametrize("name", members("prior"))
def test_a_prior_is_descended(name: str) -> None:
    head = head_of(settings("head=gaussian"))
    prior = instantiate("prior", settings(f"prior={name}", "optimizer=sgd").prior)
    objective = Objective(Standardized(Linear(NUM_FEATURES, 1), *ONES), head, prior, 100.0)
    step_of(objective, batch_of(head))
    assert objective.penalty().device.type == "meta"


@pytest.mark.parametrize("name", members("loss"))
def test_a_loss_is_descended(name: str) -> None:
    head = head_of(settings(f"head={LOSSES[name]}"))
    loss = build.build_loss(settings(f"loss={name}", f"head={LOSSES[name]}").loss)
    loss.check(head)
    loss.learn(batch_of(head).rows._replace(**{k: torch.ones(3).double() for k in ("y", "weight")}))
    objective = Objective(Standardized(Linear(NUM_FEATURES, head.eta_dim), *ONES), head, NoPrior(), 100.0, loss)
    step_of(objective, batch_of(head))


def test_a_value_that_is_read_is_found() -> None:
    """The tests above would fail: each of these is an error on the device."""
    value = torch.zeros(3, device="meta")
    for read in (bool, float, Tensor.nonzero, Tensor.cpu, lambda v: v[v > 0], lambda v: v + torch.zeros(3)):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read(value if read not in (bool, float) else value[0])


@pytest.mark.parametrize("level", [1e-13, 0.05, 0.5, 0.95, 1 - 1e-9])
def test_a_search_without_values_finds_what_scipy_does(level: float) -> None:
    """On the CPU, where quantiles are found in another way."""
    mean = torch.tensor([1e-3, 0.3, 2.0, 17.0, 1e3, 1e6], dtype=torch.float64)
    size = torch.tensor([0.5, 3.0, 1e3, 2.0, 0.8, 40.0], dtype=torch.float64)
    counts = NegativeBinomial(size, probs=mean / (mean + size), validate_args=False)
    bounds = quantile.cantelli(counts, level)
    found = quantile.section(counts, level, *bounds, quantile.STEPS)
    expected = scipy.stats.nbinom(size, size / (mean + size)).ppf(level)
    assert found.tolist() == expected.tolist() == quantile.bisect(counts, level, *bounds).tolist()
    rate = torch.tensor([1.9e3, 2.5e3, 1e4, 3.3e6, 1e9, 1e12], dtype=torch.float64)
    found = quantile.section(Poisson(rate), level, *quantile.near_poisson(rate, level))
    assert found.tolist() == quantile.bisect(Poisson(rate), level, *quantile.cantelli(Poisson(rate), level)).tolist()
