"""Settings of heads, and heads that coincide."""

import math
from typing import Any

import hydra.utils
import numpy as np
import pytest
import torch
from head_examples import (
    EXAMPLES,
    each,
    exact,
    make,
    node,
    tensors,
)

from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead, Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.head.truncated import TruncatedHead


@each
def test_start(name):
    assert make(name).start == "null"
    assert make(name, start="zero").start == "zero"
    with pytest.raises(UsageError, match=r"head\.start='nul'"):
        build(name, start="nul")


def build(name: str, **settings: Any) -> Head:
    """The head built by its class, so that its own error is seen."""
    config = {key: value for key, value in node(name).items() if key != "_target_"} | EXAMPLES[name].facts
    if "component" in config:
        part = make(name).parts[0]
        # A hurdle cuts its component off at zero.
        config["component"] = part.parts[0] if isinstance(part, TruncatedHead) else part
    return hydra.utils.get_class(node(name)["_target_"])(**config | settings)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("scale", ["predict", "", "SHARED", 0.0, -1.0, math.nan, math.inf])
def test_a_bad_source_is_refused(kind, scale):
    with pytest.raises(UsageError, match=r"head\.scale="):
        kind(scale=scale)


@pytest.mark.parametrize("kind", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("floor", [-1e-3, 1.0, math.nan, math.inf])
def test_a_bad_floor_is_refused(kind, floor):
    with pytest.raises(UsageError, match=r"head\.scale_floor="):
        kind(scale_floor=floor)


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_too_few_classes_are_refused(num_classes):
    with pytest.raises(UsageError, match="at least 2 classes"):
        CategoricalHead(num_classes)


def test_the_source_decides_where_a_parameter_lives():
    assert [(h.eta_names, h.shared_names) for h in (GaussianHead("predicted"), GaussianHead(), GaussianHead(2.0))] == [
        (("loc", "scale"), ()),
        (("loc",), ("scale",)),
        (("loc",), ()),
    ]


def test_two_classes_are_a_bernoulli():
    eta = torch.linspace(-9, 9, 19, dtype=torch.float64)
    for y in (0, 1):
        two = CategoricalHead(2).nll(torch.stack([torch.zeros_like(eta), eta], -1), torch.full((19,), y))
        one = BernoulliHead().nll(eta.unsqueeze(-1), torch.full((19,), float(y), dtype=torch.float64))
        np.testing.assert_allclose(two, one, rtol=1e-9)


def test_a_poisson_built_from_its_rate_is_the_one_built_from_eta():
    head = PoissonHead()
    eta, y = tensors("poisson", EXAMPLES["poisson"].points)
    assert isinstance(head, FactorizedHead)
    built = head.build(rate=eta[:, 0].exp())
    np.testing.assert_allclose(-built.log_prob(y), exact("poisson", EXAMPLES["poisson"].points), rtol=1e-12)


def test_a_poisson_keeps_its_precision_across_the_change_of_form():
    # Both forms are exact at 30; neighbours on either side obey p(y + 1) / p(y) = rate / (y + 1).
    y = torch.arange(25.0, 36.0, dtype=torch.float64)
    nll = PoissonHead().nll(torch.full((11, 1), 3.0, dtype=torch.float64), y)
    np.testing.assert_allclose(nll.diff(), np.log(np.arange(26.0, 36.0)) - 3.0, rtol=1e-11)
