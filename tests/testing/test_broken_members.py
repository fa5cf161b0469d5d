"""Every check of a kind of part is shown to fail, by a member that is wrong there."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from mlefw.augment.base import Augment
from mlefw.augment.flip import Flip
from mlefw.average.ema import Ema
from mlefw.batch.base import BatchRegime
from mlefw.batch.mini import MiniBatch
from mlefw.data.base import Block, Source
from mlefw.head.gaussian import GaussianHead
from mlefw.inputs.base import Inputs
from mlefw.inputs.clipped import Clipped
from mlefw.loss.base import Loss
from mlefw.metric.base import Metric
from mlefw.prior.l1 import L1Prior
from mlefw.prior.l2 import L2Prior
from mlefw.prior.none import NoPrior
from mlefw.reading.table import Table
from mlefw.testing import augment, average, batch, inputs, loss, metric, model, prior, source
from mlefw.testing.conformance import ConformanceError


def like(kind, *arguments, **methods):
    """A member of a kind with other methods or class attributes."""
    return type("Broken", (kind,), methods)(*arguments)


def size_of(scale):
    """Mini-batches of four rows of which each has a scale of its own."""

    def batches(self, num_rows, epoch, generator):
        return (
            (index, scale(index, given, num_rows)) for index, given in MiniBatch(4).batches(num_rows, epoch, generator)
        )

    return like(MiniBatch, 4, batches=batches)


def from_the_global_generator(self, num_rows, epoch, generator):
    return iter([(torch.randperm(num_rows), 1.0)])


def twice(self, num_rows, epoch, generator):
    return iter([(torch.arange(num_rows).repeat(2), 0.5)])


PRIORS = {
    "penalty_is_a_scalar": like(L2Prior, 1.0, smooth_part=lambda self, w: w.square().sum(-1)),
    "penalty_is_a_sum_over_entries": like(L2Prior, 1.0, forward=lambda self, w: w.square().sum() + 1.0),
    "density_integrates_to_one": like(L2Prior, 1.0, forward=lambda self, w: 0.5 * w.square().sum()),
    "smooth_and_nonsmooth_parts_add_up": like(L1Prior, 1.0, smooth_part=lambda self, w: w.abs().sum()),
    "gradient_agrees_with_finite_differences": like(
        L2Prior, 1.0, smooth_part=lambda self, w: (w * w.detach()).sum() / 2
    ),
    "prox_is_the_minimiser": like(
        L1Prior, 1.0, prox=lambda self, w, step: w.sign() * (w.abs() - 2 * step * self.rate).clamp(min=0)
    ),
    "prox_acts_on_each_entry": like(L1Prior, 1.0, prox=lambda self, w, step: 0.9 * w),
    "claimed_convexity_holds": like(
        L2Prior, 1.0, convex=True, forward=lambda self, w: (1 + w.square()).log().sum(), smooth_part=L2Prior.forward
    ),
}
BATCHES = {
    "num_batches_is_the_number_of_steps": like(MiniBatch, 4, num_batches=lambda self, num_rows, epoch: num_rows // 4),
    "steps_are_row_indices_and_a_scale": size_of(lambda index, given, n: int(given)),
    "steps_depend_on_the_generator_alone": like(
        MiniBatch, 4, batches=from_the_global_generator, num_batches=lambda self, num_rows, epoch: 1
    ),
    "scale_is_unbiased": size_of(lambda index, given, n: n / 4),
    "claimed_without_replacement_holds": like(
        MiniBatch, 4, without_replacement=True, batches=twice, num_batches=lambda self, num_rows, epoch: 1
    ),
}


class Net(nn.Module):
    """A linear map, followed by something."""

    def __init__(self, after) -> None:
        super().__init__()
        self.layer, self.after = nn.Linear(3, 2), after

    def forward(self, x):
        return self.after(self.layer(x))


MODELS = {
    "output_has_a_column_for_each_eta": Net(lambda raw: raw[..., 0]),
    "output_is_finite_and_repeatable": Net(lambda raw: raw + torch.randn(())),
    "rows_do_not_mix": Net(lambda raw: raw - raw.mean(0)),
    "rows_do_not_mix_in_training": Net(nn.BatchNorm1d(2)),
}


class Mean(Metric):
    """The mean of y, with room for mistakes."""

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("totals", 2)

    def update(self, distribution, y, weight):
        self.totals = self.totals + torch.stack([weight.sum(), weight @ y])

    def compute(self):
        return {"mean": self.totals[1] / self.totals[0]}


class LastBlock(Mean):
    def update(self, distribution, y, weight):
        self.totals = torch.stack([weight.sum(), weight @ y])


class Undeclared(Mean):
    def __init__(self) -> None:
        super().__init__()
        self.add_state("seen", torch.zeros(()), dist_reduce_fx="sum")


class MeanOfBlockMeans(Mean):
    def update(self, distribution, y, weight):
        self.totals = self.totals + torch.stack([torch.ones((), dtype=torch.float64), y.mean()])


class Unweighted(Mean):
    def update(self, distribution, y, weight):
        super().update(distribution, y, torch.ones_like(weight))


class Remembers(Mean):
    count = 0.0

    def update(self, distribution, y, weight):
        super().update(distribution, y, weight)
        self.count += 1

    def compute(self):
        return {"mean": self.totals[1] / self.totals[0] + self.count}


class Aside(Mean):
    """Keeps a part of what it needs outside of the declared sums."""

    def reset(self):
        super().reset()
        self.population = torch.zeros((), dtype=torch.float64)

    def update(self, distribution, y, weight):
        super().update(distribution, y, weight)
        self.population = self.population + weight.sum()

    def compute(self):
        return {"mean": self.totals[1] / self.population}


METRICS = {
    "figures_are_named_numbers": like(Mean, compute=lambda self: {"mean": self.totals}),
    "sums_are_declared_and_in_float64": Undeclared(),
    "blocks_and_order_do_not_matter": MeanOfBlockMeans(),
    "sums_of_blocks_add_up": Aside(),
    "weight_two_is_the_row_twice": Unweighted(),
    "reset_forgets_everything": Remembers(),
}


class Plainly(Loss):
    """The NLL, with room for mistakes."""

    def check(self, head):
        pass

    def forward(self, head, eta, y):
        return head.nll(eta, y)


LOSSES = {
    "one_finite_value_per_row": like(Plainly, forward=lambda self, head, eta, y: head.nll(eta, y).mean()),
    "rows_do_not_mix": like(Plainly, forward=lambda self, head, eta, y: head.nll(eta, y) * head.nll(eta, y).mean()),
    "claimed_likelihood_is_the_nll": like(
        Plainly, is_likelihood=True, forward=lambda self, head, eta, y: 2 * head.nll(eta, y)
    ),
    "claimed_potential_has_its_gradient": like(
        Plainly, forward=lambda self, head, eta, y: head.nll(eta, y) * head.nll(eta, y).detach()
    ),
}


@dataclass(kw_only=True)
class Numbers(Source):
    """Ten rows, with room for mistakes."""

    def read(self) -> Table:
        return Table({"x": np.arange(10.0), "y": np.ones(10)}, "numbers", first_row=1)


def half_a_column(self):
    table = Numbers.read(self)
    object.__setattr__(table, "columns", {"x": np.arange(10.0), "y": np.array([1, None] * 5, dtype=object)})
    return table


def another_each_time(self):
    self.seed += 1
    return Table({"x": np.arange(10.0) + self.seed}, "numbers")


def some_blocks(self):
    yield Block(Numbers.read(self).take(np.arange(9)), np.arange(9), 1.0)


def overlapping(self, table=None):
    return {"train": (table, np.arange(6)), "test": (table, np.arange(5, 10))}


SOURCES = {
    "columns_are_of_one_length": like(Numbers, read=half_a_column),
    "reading_twice_gives_the_same_rows": like(Numbers, read=another_each_time),
    "blocks_are_the_rows_in_order": like(Numbers, read_blocks=some_blocks),
    "splits_share_out_the_rows": like(Numbers, parts=overlapping),
    "rows_can_be_named": like(Numbers, read=lambda self: Table({"x": np.ones(4)}, "", numbers=np.zeros(4, dtype=int))),
}

_asked = itertools.count(2)
AVERAGES = {
    "shares_are_above_zero_and_at_most_one": like(
        Ema, share=lambda self, progress, length: length / progress if progress < 3 else 2.0
    ),
    "first_step_replaces_initial_weights": like(Ema, share=lambda self, progress, length: 0.1),
    "share_depends_on_its_arguments_alone": like(Ema, share=lambda self, progress, length: 1 / next(_asked)),
}


class Span(Inputs):
    """Features over their largest magnitude among the training rows."""

    def __init__(self):
        super().__init__()
        self.register_buffer("most", torch.ones(3, dtype=torch.float64))

    @property
    def num_inputs(self):
        return 3

    def learn(self, x, weight):
        self.most = x.abs().amax(0)

    def forward(self, x):
        return x / self.most


class Trained(Span):
    """Has a weight of its own, which nobody trains."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class Forgetful(Span):
    """Keeps what it has learnt where no checkpoint finds it."""

    def learn(self, x, weight):
        self.center = x.mean(0)

    def forward(self, x):
        return x - self.center


def learn_the_first(self, x, weight):
    self.most = x[0].abs() + 1


def learn_the_mean(self, x, weight):
    self.most = x.square().mean(0)


def in_place(self, x):
    return x.mul_(2.0)


INPUTS = {
    "all_state_is_buffers": Trained(),
    "output_has_a_column_for_each_input": like(Span, forward=lambda self, x: x[..., :2]),
    "output_is_finite_and_repeatable": like(Span, forward=in_place),
    "rows_do_not_mix": like(Span, forward=lambda self, x: x - x.mean(0)),
    "buffers_restore_the_map": Forgetful(),
    "weight_two_is_the_row_twice": like(Span, learn=learn_the_mean),
    "order_of_rows_does_not_matter": like(Span, learn=learn_the_first),
}


class Brighter(Augment):
    """All colours of an image multiplied by a random number."""

    def forward(self, x):
        return x * (1 + torch.rand(len(x), 1, 1, 1)).to(x)


class Learning(Brighter):
    """Has a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.ones(()))


_draw = torch.Generator().manual_seed(0)
AUGMENTS = {
    "it_holds_no_state": Learning(),
    "shape_and_type_stay": like(Brighter, forward=lambda self, x: x[..., 1:]),
    "output_is_finite_and_its_argument_unchanged": like(Flip, forward=lambda self, x: x.mul_(2)),
    "random_numbers_are_those_of_the_global_generator": like(
        Brighter, forward=lambda self, x: x + torch.rand(len(x), 1, 1, 1, generator=_draw).to(x)
    ),
    "each_row_is_drawn_anew": like(Brighter, forward=lambda self, x: x * torch.rand(()).to(x)),
    "rows_do_not_mix": like(Brighter, forward=lambda self, x: x + torch.rand(len(x), 1, 1, 1).to(x) * x.mean(0)),
}


class Ahead(nn.Module):
    """Forecasts a token by itself."""

    def forward(self, x):
        return nn.functional.one_hot(x.roll(-1, 1), 5).float()


X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
LOC = torch.linspace(-1, 1, 60, dtype=torch.float64)


def check(kind: str, member: object) -> None:
    if kind == "model":
        model.check_model(member, X, 2)
    elif kind == "later positions":
        model.check_model(member, torch.arange(24).reshape(4, 6) % 5, 5, (6,), is_sequential=True)
    elif kind == "augment":
        augment.check_augment(member, (2, 4, 5))
    elif kind == "inputs":
        inputs.check_inputs(member, X.double())
    elif kind == "metric":
        metric.check_metric(member, lambda index: Normal(LOC[index], 1.0), LOC.sin() + 3)
    elif kind == "loss":
        loss.check_loss(member, GaussianHead(scale="predicted"))
    else:
        alone = (prior.check_prior, batch.check_batch, average.check_average, source.check_source)
        next(one for one in alone if one.__name__ == f"check_{kind}")(member)


KINDS = {
    "prior": (prior, PRIORS),
    "batch": (batch, BATCHES),
    "average": (average, AVERAGES),
    "augment": (augment, AUGMENTS),
    "inputs": (inputs, INPUTS),
    "model": (model, MODELS),
    "metric": (metric, METRICS),
    "loss": (loss, LOSSES),
    "source": (source, SOURCES),
}
CASES = [(kind, name) for kind, (_, broken) in KINDS.items() for name in broken]


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_member_that_breaks_it(kind: str) -> None:
    module, broken = KINDS[kind]
    elsewhere = {"later_positions_do_not_matter"} if kind == "model" else set()
    assert set(broken) == {one.__name__ for one in module.CHECKS} - elsewhere


def test_a_model_that_looks_ahead_is_found() -> None:
    with pytest.raises(ConformanceError, match="later_positions_do_not_matter: the output up to position 0 changes"):
        check("later positions", Ahead())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_each_check_can_fail(kind: str, name: str) -> None:
    with pytest.raises(ConformanceError, match="breaks the rules of its kind") as caught:
        check(kind, KINDS[kind][1][name])
    assert f"\n  {name}: " in str(caught.value)


def test_columns_of_unequal_length_are_refused_as_the_table_is_made() -> None:
    ragged = like(Numbers, read=lambda self: Table({"x": np.ones(4), "y": np.ones(3)}, "here"))
    with pytest.raises(Exception, match=r"column 'y' has shape \(3,\)"):
        check("source", ragged)


class Plain(BatchRegime):
    """One row at a time in an order of its own, each at the scale of all of them."""

    def batches(self, num_rows, epoch, generator):
        return ((torch.tensor([i]), float(num_rows)) for i in torch.randperm(num_rows, generator=generator).tolist())

    def num_batches(self, num_rows, epoch):
        return num_rows


RIGHT = [
    ("prior", NoPrior()),
    ("batch", Plain()),
    ("average", Ema(2.0)),
    ("augment", Brighter()),
    ("inputs", Span()),
    ("inputs", Clipped(3)),
    ("model", Net(nn.Identity())),
    ("model", Net(nn.Sequential(nn.Dropout(0.5), nn.LayerNorm(2)))),
    ("metric", Mean()),
    ("loss", Plainly()),
    ("source", Numbers()),
]


@pytest.mark.parametrize(("kind", "member"), RIGHT)
def test_a_right_member_passes(kind: str, member: object) -> None:
    check(kind, member)
