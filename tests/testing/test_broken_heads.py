"""Every check of heads is shown to fail: one head for each that is wrong in this one respect."""

import math
from collections.abc import Callable
from typing import ClassVar

import pytest
import torch
from torch.distributions import Cauchy, Distribution, Normal

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.gaussian import Gaussian, GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.multivariate_gaussian import MultivariateGaussianHead
from mlefw.testing import likelihood, predictive
from mlefw.testing.conformance import ConformanceError
from mlefw.testing.head import STRUCTURE, check_head

CHECKS = (*STRUCTURE, *likelihood.CHECKS, *predictive.CHECKS)


class Predicted(GaussianHead):
    """A normal distribution with two predicted parameters, made by `kind`."""

    kind: ClassVar[Callable[..., Distribution]] = Gaussian

    def __init__(self) -> None:
        super().__init__(scale="predicted")

    def build(self, loc, scale):
        return type(self).kind(loc, scale, validate_args=False)


def head(**methods) -> Head:
    """A Predicted with other methods."""
    return type("Broken", (Predicted,), methods)()


def of(**methods) -> Head:
    """A Predicted of a normal distribution with other methods."""
    return head(kind=type("Kind", (Gaussian,), methods))


def log_normal(distribution, y):
    return Normal.log_prob(distribution, y)


def without_second_derivatives(distribution, y):
    value = log_normal(distribution, y)
    if not value.requires_grad:
        return value
    parts = (distribution.loc, distribution.scale)
    slopes = torch.autograd.grad(value.sum(), parts, retain_graph=True)
    return value.detach() + sum((p - p.detach()) * s.detach() for p, s in zip(parts, slopes, strict=True))


def twice_named(self) -> None:
    GaussianHead.__init__(self, scale="predicted")
    self.eta_names = ("loc", "loc")


def forgetful(self) -> None:
    GaussianHead.__init__(self, scale="predicted")
    self.register_buffer("floor", self.floor, persistent=False)


def convex_by_claim(self) -> None:
    GaussianHead.__init__(self, scale="predicted")
    self.convex = True


class Shared(GaussianHead):
    def complete(self, eta):
        whole = super().complete(eta)
        return torch.cat([whole[..., : self.eta_dim], self.shared.double().expand(*eta.shape[:-1], 1)], -1)


class Joint(MultivariateGaussianHead):
    def distribution(self, eta):
        found = super().distribution(eta)
        known = found.log_prob
        found.log_prob = lambda y: known(y) + math.log(2 * math.pi)
        return found


BROKEN: dict[str, Head] = {
    "names_and_dimensions": head(__init__=twice_named),
    "state_is_complete": head(__init__=forgetful),
    "one_value_per_row": of(log_prob=lambda self, y: log_normal(self, y).float()),
    "rows_do_not_mix": of(log_prob=lambda self, y: log_normal(self, y) + 1e-3 * self.loc.mean()),
    "wrong_shapes_are_refused": head(complete=lambda self, eta: eta.double()[..., :2]),
    "autocast_does_not_reach_the_likelihood": head(
        forward=lambda self, eta: self.distribution((eta.float() @ torch.eye(2)).double())
    ),
    "shared_columns_follow_the_parameter": Shared(),
    "gradients_agree_with_finite_differences": of(
        log_prob=lambda self, y: Gaussian(self.loc, self.scale.detach()).log_prob(y)
    ),
    "density_sums_to_one": of(log_prob=lambda self, y: log_normal(self, y) + 0.5 * math.log(2 * math.pi)),
    "joint_density_integrates_to_one": Joint(("a", "b")),
    "score_has_mean_zero": of(
        log_prob=lambda self, y: (
            Gaussian(self.loc, self.scale.detach()).log_prob(y) - (self.scale / self.scale.detach()).log()
        )
    ),
    "score_has_the_variance_of_the_mean_hessian": of(log_prob=without_second_derivatives),
    "stated_information_is_the_variance_of_the_score": head(
        information=lambda self, eta: 2 * GaussianHead.information(self, eta)
    ),
    "claimed_convexity_holds": head(__init__=convex_by_claim),
    "claimed_reference_holds": head(reference=0),
    "mean_and_variance_are_those_of_the_density": of(variance=property(lambda self: self.scale)),
    "cdf_is_that_of_the_density": head(kind=type("Kind", (Gaussian,), {})),
    "quantiles_invert_the_cdf": head(kind=type("Kind", (Gaussian,), {})),
    "own_draws_have_a_uniform_pit": of(sample=lambda self, shape=(): 1.1 * Normal.sample(self, shape)),
    "log_link_is_true_if_exposure_multiplies_the_mean": head(log_link=property(lambda self: True)),
    "training_descends_the_nll": head(rounded_nll=lambda self, eta, y: self.nll_complete(eta, y) - 2 * self.kink),
}


class Own(Distribution):
    """A normal distribution that mlefw knows nothing of, with a distribution function and quantiles of its own."""

    def __init__(self, loc, scale, shift=0.0, wrong_level=0.0, validate_args=False) -> None:
        self.normal, self.shift, self.wrong_level = Normal(loc, scale, validate_args=False), shift, wrong_level
        super().__init__(self.normal.batch_shape, validate_args=False)

    support = torch.distributions.constraints.real
    mean = property(lambda self: self.normal.mean)
    variance = property(lambda self: self.normal.variance)

    def log_prob(self, y):
        return self.normal.log_prob(y)

    def sample(self, shape=()):
        return self.normal.sample(shape)

    def cdf(self, y):
        return self.normal.cdf(y + self.shift)

    def icdf(self, level):
        return self.normal.icdf(level) + self.wrong_level - self.shift


BROKEN["cdf_is_that_of_the_density"] = head(kind=lambda *a, **k: Own(*a, shift=0.3))
BROKEN["quantiles_invert_the_cdf"] = head(kind=lambda *a, **k: Own(*a, wrong_level=0.01))


def test_every_check_has_a_head_that_breaks_it() -> None:
    assert set(BROKEN) == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize("name", BROKEN)
def test_each_check_can_fail(name: str) -> None:
    # Where two eta columns are one shape, checks before the one in question may fail, too.
    checks = {check.__name__: check for check in CHECKS}
    with pytest.raises(ConformanceError, match=rf"\n  {name}: ") as caught:
        _hold(BROKEN[name], checks[name])
    assert isinstance(caught.value, UsageError)
    assert isinstance(caught.value, AssertionError)


def _hold(broken: Head, check) -> None:
    from mlefw.testing.conformance import hold
    from mlefw.testing.head_case import HeadCase, plausible_etas

    broken = broken.double()
    hold(broken, HeadCase(broken, plausible_etas(broken), 1e-9), [check])


def test_right_heads_pass_and_all_that_is_wrong_is_named_at_once() -> None:
    check_head(head())
    check_head(head(kind=Own))
    with pytest.raises(ConformanceError) as caught:
        check_head(BROKEN["density_sums_to_one"])
    message = str(caught.value)
    assert "Broken breaks the rules of its kind" in message
    assert "at eta=[0, 0] it comes to 2.50663, expected 1 ± 1e-09" in message


def test_it_does_not_change_the_head() -> None:
    given = LaplaceHead(scale="predicted")
    check_head(given)
    assert given.kink == 0.0
    assert given.shared.dtype == torch.float32


class CauchyHead(Predicted):
    kind = Cauchy

    def information(self, eta):
        return None


def test_tails_without_moments_are_integrated() -> None:
    check_head(CauchyHead())
