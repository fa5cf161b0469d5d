"""Plugins are held to the rules of their kind as a run is prepared; what is right is left alone, however awkward."""

import math
import time
import warnings
from typing import ClassVar

import pytest
import torch
from conftest import Run
from torch import nn
from torch.distributions import (
    Cauchy,
    Distribution,
    LowRankMultivariateNormal,
    Normal,
    Pareto,
    Uniform,
    VonMises,
    constraints,
)

from mlefw import inverse_link
from mlefw.batch.full import FullBatch
from mlefw.batch.mini import MiniBatch
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import Gaussian, GaussianHead
from mlefw.inputs.base import Inputs
from mlefw.inputs.clipped import Clipped
from mlefw.metric.error import PointError
from mlefw.metric.nll import Nll
from mlefw.model.linear import Linear
from mlefw.objective.objective import Objective
from mlefw.prior.base import Prior
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.rows.standardize import Standardized
from mlefw.testing.plugins import check_plugins


class Pair(FactorizedHead):
    """Two predicted parameters of a distribution `kind`."""

    inverse_links: ClassVar = {"loc": inverse_link.identity, "scale": inverse_link.exp}
    support = constraints.real
    kind: ClassVar[type] = Normal

    def __init__(self) -> None:
        super().__init__(loc="predicted", scale="predicted")

    def build(self, loc, scale):
        return type(self).kind(loc, scale)


def pair(kind, **settings) -> Head:
    return type("Mine", (Pair,), {"kind": kind, **settings})()


class Bare(Distribution):
    """A distribution of which nothing but the density is known."""

    arg_constraints: ClassVar = {}

    def __init__(self, loc, scale) -> None:
        self.loc, self.scale = loc, scale
        super().__init__(loc.shape, validate_args=False)


class BareNormal(Bare):
    support = constraints.real

    def log_prob(self, y):
        return Normal(self.loc, self.scale).log_prob(y)


class LogCauchy(Bare):
    """Its tails fall like 1 / (y log² y): a thousandth lies beyond the largest float."""

    support = constraints.positive

    def log_prob(self, y):
        return Cauchy(self.loc, self.scale).log_prob(y.log()) - y.log()


class Skellam(Bare):
    """A whole number of either sign: the difference of two geometric numbers."""

    support = type("Integers", (constraints.Constraint,), {"is_discrete": True, "check": lambda s, v: v == v.round()})()

    def log_prob(self, y):
        p = torch.sigmoid(self.loc)
        return torch.log1p(-p) - torch.log1p(p) + y.abs() * p.log()


class Tweedie(Bare):
    """Zero with a probability, and otherwise an exponential number."""

    support = constraints.nonnegative

    def log_prob(self, y):
        p = torch.sigmoid(self.loc)
        return torch.where(y == 0, p.log(), torch.log1p(-p) - self.scale.log() - y / self.scale)


class Endless(Bare):
    """A count whose tail is too heavy to be summed: P(Y >= y) = (1 + y)^-a with a up to a tenth."""

    support = constraints.nonnegative_integer

    def log_prob(self, y):
        a = 0.05 + 0.05 * torch.sigmoid(self.loc)
        return -a * torch.log1p(y) + torch.log(-torch.expm1(-a * torch.log1p(1 / (1 + y))))


class Narrow(Bare):
    """Two peaks that are a million times as narrow as they are apart."""

    support = constraints.real

    def sample(self, shape=()):
        side = torch.where(torch.rand(*shape, *self.loc.shape) < 0.3, 1e6, 0.0)
        return self.loc + self.scale * (side + torch.randn(*shape, *self.loc.shape))

    def log_prob(self, y):
        one, other = (Normal(self.loc + self.scale * at, self.scale).log_prob(y) for at in (0.0, 1e6))
        return torch.logaddexp(one + math.log(0.7), other + math.log(0.3))


class Pairwise(Head):
    """Two numbers with a correlation."""

    support = constraints.independent(constraints.real, 1)

    def __init__(self) -> None:
        super().__init__(("a", "b", "slope"))
        self.event_shape = torch.Size([2])

    def distribution(self, eta):
        factor = eta[..., 2:].unsqueeze(-1).expand(*eta.shape[:-1], 2, 1)
        return LowRankMultivariateNormal(eta[..., :2], factor, torch.ones_like(eta[..., :2]))


AWKWARD = {
    "cauchy": pair(Cauchy),
    "only a density": pair(BareNormal),
    "log-cauchy": pair(LogCauchy, support=constraints.positive),
    "whole numbers": pair(Skellam, support=Skellam.support),
    "an atom at zero": pair(Tweedie, support=constraints.nonnegative),
    "a sum that does not end": pair(Endless, support=constraints.nonnegative_integer),
    "narrow peaks": pair(Narrow),
    "angles": pair(VonMises, support=constraints.interval(-math.pi, math.pi)),
    "a half line": pair(
        lambda loc, scale: Pareto(torch.ones_like(loc), scale, validate_args=False),
        support=constraints.greater_than(1.0),
    ),
    "an interval": pair(
        lambda loc, scale: Uniform(-2 + 0 * loc, 3 + 0 * loc, validate_args=False), support=constraints.interval(-2, 3)
    ),
    "two numbers": Pairwise(),
}


def parts(head=None, prior=None, model=None, regime=None, metrics=(), inputs=None):
    """What a run is made of: parts of mlefw where none is given."""
    head = GaussianHead() if head is None else head
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    y = x.sum(1) if not head.event_shape else x[:, :2]
    rows = Rows(x, y, torch.ones(40).double(), torch.zeros(40).double())
    model = Linear(3, head.eta_dim) if model is None else model
    whole = Standardized(model, torch.zeros(3).double(), torch.ones(3).double(), inputs)
    objective = Objective(whole, head, prior or NoPrior(), 40.0)
    return objective, regime or FullBatch(), metrics, rows


@pytest.mark.parametrize("name", AWKWARD)
def test_right_heads_are_left_alone_however_awkward(name: str) -> None:
    # A warning fails a test, too.
    started = time.monotonic()
    check_plugins(*parts(AWKWARD[name]))
    assert time.monotonic() - started < 5


def test_a_head_of_very_many_classes_takes_no_time() -> None:
    head = type("Mine", (CategoricalHead,), {})(20_000)
    objective, *rest = parts(head, model=Linear(3, 20_000))
    started = time.monotonic()
    check_plugins(objective, *rest)
    assert time.monotonic() - started < 1


class Flat(Prior):
    """Uniform over all numbers."""

    convex = flat = True

    def forward(self, w):
        return w.new_zeros(())


class Student(Prior):
    """A Student t with one degree of freedom, and no claim."""

    def forward(self, w):
        return (math.log(math.pi) + torch.log1p(w.square())).sum()


class Net(nn.Module):
    """A linear map, and something after it."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.layer, self.after = nn.Linear(3, 1), after

    def forward(self, x):
        return self.after(self.layer(x))


class Halved(Inputs):
    """Half of each feature."""

    @property
    def num_inputs(self):
        return 3

    def learn(self, x, weight):
        pass

    def forward(self, x):
        return x / 2


class Importance(MiniBatch):
    """A third of the rows is drawn in each epoch, at three times the scale."""

    def batches(self, num_rows, epoch, generator):
        count = max(num_rows // 3, 1)
        yield torch.randperm(num_rows, generator=generator)[:count], num_rows / count

    def num_batches(self, num_rows, epoch):
        return 1


@pytest.mark.parametrize(
    "some",
    [
        {"prior": Flat()},
        {"prior": Student()},
        {"inputs": Halved()},
        {"model": Net(nn.Dropout(0.5))},
        {"model": Net(nn.LayerNorm(1))},
        {"regime": Importance(4)},
        {"metrics": [type("Mine", (PointError,), {})()]},
    ],
    ids=["flat prior", "heavy prior", "inputs", "dropout", "layer norm", "regime", "metric"],
)
def test_other_right_parts_are_left_alone(some) -> None:
    check_plugins(*parts(**some))


def log_prob(distribution, y):
    return Normal.log_prob(distribution, y)


def normal(function) -> Head:
    return pair(type("Kind", (Normal,), {"log_prob": function}))


def detached(self, y):
    return Gaussian(self.loc, self.scale.detach()).log_prob(y)


class Centred(nn.Module):
    """Takes the mean over the rows out, in either mode."""

    def forward(self, x):
        return x - x.mean(0)


REFUSED = {
    "density_sums_to_one": {"head": normal(lambda self, y: log_prob(self, y) + 0.5 * math.log(2 * math.pi))},
    "gradient_agrees_with_finite_differences": {"head": normal(detached)},
    "prox_is_the_minimiser": {"prior": type("Mine", (L1Prior,), {"prox": lambda s, w, step: 0.5 * w})(1.0)},
    "scale_is_unbiased": {
        "regime": type(
            "Mine",
            (MiniBatch,),
            {
                "batches": lambda s, n, epoch, generator: (
                    (index, n / 16) for index, _ in MiniBatch(16).batches(n, epoch, generator)
                )
            },
        )(16)
    },
    "rows_do_not_mix": {"model": Net(Centred())},
    "output_has_a_column_for_each_input": {
        "inputs": type("Mine", (Halved,), {"forward": lambda self, x: x.float()})(),
    },
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_would_make_training_wrong_is_refused_by_name(rule: str) -> None:
    with (
        warnings.catch_warnings(),
        pytest.raises(UsageError, match=rf"the rules of its kind(.|\n)*\.\w+: {rule}: "),
    ):
        warnings.simplefilter("ignore")
        check_plugins(*parts(**REFUSED[rule]))


class Shrinking(Bare):
    """Uniform up to a parameter: a right density whose support moves, so that its score has a mean."""

    support = constraints.real

    def log_prob(self, y):
        inside = (y >= 0) & (y <= self.scale)
        return torch.where(inside, -self.scale.log(), torch.full_like(y, -math.inf))


class MeanOfBlocksError(PointError):
    """The mean of the errors of blocks, whatever their size."""

    def update(self, distribution, y, weight):
        super().update(distribution, y, weight / weight.sum().clamp(min=1))


class Noise(nn.Module):
    """Noise that evaluation does not switch off."""

    def forward(self, x):
        return x + torch.randn(())


class Middle(Clipped):
    """Bounds that do not know of weights."""

    def learn(self, x, weight):
        self.lower, self.upper = -x.square().mean(0), x.square().mean(0)


WARNED = {
    "score_has_mean_zero": {"head": pair(Shrinking)},
    "prior_integrates_to_one": {"prior": type("Mine", (L2Prior,), {"forward": lambda s, w: w.square().sum() / 2})(1.0)},
    "claimed_convexity_holds": {"prior": type("Mine", (Student,), {"convex": True})()},
    "weight_two_is_the_row_twice": {"inputs": Middle(3)},
    "rows_do_not_mix_in_training": {"model": Net(nn.BatchNorm1d(1))},
    "evaluation_is_repeatable": {"model": Net(Noise())},
    "blocks_and_order_do_not_matter": {"metrics": [Nll(), MeanOfBlocksError()]},
    "steps_depend_on_the_generator_alone": {
        "regime": type("Mine", (FullBatch,), {"batches": lambda s, n, e, g: iter([(torch.randperm(n), 1.0)])})()
    },
}


@pytest.mark.parametrize("rule", WARNED)
def test_what_leaves_training_right_is_warned_of_by_name(rule: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_plugins(*parts(**WARNED[rule]))
    assert any(f": {rule}: " in str(one.message) for one in caught)


def test_a_check_that_cannot_be_made_is_said_to_be_left_out() -> None:
    def refuses(self, y):
        raise RuntimeError("not for you")

    with pytest.warns(UserWarning, match=r"the check of .*Mine left out: RuntimeError: not for you"):
        check_plugins(*parts(normal(refuses)))


def test_nothing_of_a_run_is_changed() -> None:
    objective, *rest = parts(pair(Cauchy), Student(), Net(nn.BatchNorm1d(1)))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    torch.manual_seed(0)
    state, mode = torch.get_rng_state(), objective.model.train().training
    with pytest.warns(UserWarning, match="rows_do_not_mix_in_training"):
        check_plugins(objective, *rest)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert objective.model.training == mode


HEAD = """
import math
from typing import ClassVar

from torch.distributions import Normal, constraints

from mlefw import inverse_link
from mlefw.head.base import FactorizedHead


class Kind(Normal):
    def log_prob(self, y):
        return super().log_prob(y) + 0.5 * math.log(2 * math.pi)


class Short(FactorizedHead):
    inverse_links: ClassVar = {"loc": inverse_link.identity}
    support = constraints.real

    def __init__(self):
        super().__init__(loc="predicted")

    def build(self, loc):
        return Kind(loc, 1.0)
"""


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_head_without_half_log_two_pi_is_refused_before_anything_is_written(mlefw: Run, tmp_path, command) -> None:
    (tmp_path / "short.py").write_text(HEAD, encoding="utf-8")
    (tmp_path / "c" / "head").mkdir(parents=True)
    yaml = "defaults:\n  - override /metric@_global_.metric: continuous\n_target_: short.Short\n"
    (tmp_path / "c" / "head" / "short.yaml").write_text(yaml, encoding="utf-8")
    done = mlefw(command, "head=short", "--config-dir", "c", "--plugin", "short", "run_dir=r")
    assert done.returncode == 2, done.stderr
    assert "short.Short: density_sums_to_one: at eta=" in done.stderr
    assert "it comes to 2.50663, expected 1 ± 1e-03" in done.stderr
    assert not (tmp_path / "r").exists()
