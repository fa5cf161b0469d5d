"""Inverse links: from an unconstrained eta to a distribution parameter."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import ExpTransform, Transform, identity_transform


class _Sigmoid(Transform):
    """The standard logistic function, without the clipping of torch's own."""

    domain, codomain, bijective, sign = constraints.real, constraints.unit_interval, True, 1

    def _call(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.log() - torch.log1p(-y)


class _AboveOne(Transform):
    """1 + exp(eta)."""

    domain, codomain, bijective, sign = constraints.real, constraints.greater_than(1.0), True, 1

    def _call(self, x: Tensor) -> Tensor:
        return 1 + x.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - 1).log()


class _BetweenOneAndTwo(Transform):
    """1.01 + 0.98 · sigmoid(eta): the power of a variance function between those of counts and of gamma variables."""

    domain, codomain, bijective, sign = constraints.real, constraints.interval(1.01, 1.99), True, 1
    words = "logit of ({} - 1.01) / 0.98,"

    def _call(self, x: Tensor) -> Tensor:
        return 1.01 + 0.98 * torch.sigmoid(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - 1.01).log() - (1.99 - y).log()


class Power(Transform):
    """A power of a positive eta, eta^exponent: the inverse link of a positive parameter that is not a logarithm.

    Only a positive eta gives a parameter; `Head.feasible` says for which rows it does.
    """

    domain, codomain, bijective = constraints.positive, constraints.positive, True

    def __init__(self, exponent: float, words: str) -> None:
        super().__init__()
        self.exponent, self.words = exponent, words

    @property
    def sign(self) -> int:
        """Whether the parameter rises with eta (1) or falls (−1)."""
        return 1 if self.exponent > 0 else -1

    def log(self, x: Tensor) -> Tensor:
        """The logarithm of the parameter."""
        return self.exponent * x.log()

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of |d parameter / d eta|."""
        return (self.exponent - 1) * x.log() + math.log(abs(self.exponent))

    def _call(self, x: Tensor) -> Tensor:
        return x if self.exponent == 1 else x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y if self.exponent == 1 else y ** (1 / self.exponent)


class _Reciprocal(Transform):
    """1 / eta, for a parameter of either sign."""

    domain, codomain, bijective, sign, words = constraints.real, constraints.real, True, -1, "1 / {}"

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """The logarithm of |d parameter / d eta|."""
        return -2 * x.abs().log()

    def _call(self, x: Tensor) -> Tensor:
        return 1 / x

    def _inverse(self, y: Tensor) -> Tensor:
        return 1 / y


identity: Transform = identity_transform
exp: Transform = ExpTransform()
sigmoid: Transform = _Sigmoid()
above_one: Transform = _AboveOne()
between_one_and_two: Transform = _BetweenOneAndTwo()
reciprocal: Transform = _Reciprocal()

REAL: Mapping[str, Transform] = {"identity": identity, "log": exp, "inverse": reciprocal}
"""Inverse links of a real location by the name of the link."""

POSITIVE: Mapping[str, Transform] = {
    "log": exp,
    "identity": Power(1.0, "{}"),
    "inverse": Power(-1.0, "1 / {}"),
    "sqrt": Power(2.0, "square root of {}"),
    "inverse_squared": Power(-0.5, "1 / {}²"),
}
"""Inverse links of a positive mean by the name of the link (McCullagh & Nelder, 1989)."""


def log_of(link: Transform, eta: Tensor) -> Tensor:
    """The logarithm of the positive parameter that an inverse link makes of eta, without forming the parameter."""
    if link is exp:
        return eta
    return link.log(eta) if isinstance(link, Power) else link(eta).log()


def log_slope(link: Transform, eta: Tensor) -> Tensor:
    """The logarithm of |d log parameter / d eta| of a positive parameter."""
    if isinstance(link, Power):
        return math.log(abs(link.exponent)) - eta.log()
    return torch.zeros_like(eta) if link is exp else link.log_abs_det_jacobian(eta, link(eta)) - link(eta).log()


def kept_inside(link: Transform, eta: Tensor, least: Tensor) -> Tensor:
    """An eta of training, moved to where an inverse link is defined and does not overflow; unchanged if it is there.

    An eta below `least` (a `Power`), or with a smaller size (a reciprocal), counts as `least`; its gradient passes
    where it would bring the eta back, as for a floor of a scale.
    """
    if isinstance(link, Power):
        return floored(eta, least)
    if link is not reciprocal:
        return eta
    side = torch.where(eta < 0, -torch.ones_like(eta), torch.ones_like(eta))
    return side * floored(side * eta, least)


def eta_words(link: Transform, name: str) -> str:
    """What eta is of the parameter that the link makes of it: `log scale`."""
    if (words := getattr(link, "words", None)) is not None:
        return str(words).format(name)
    known = ((identity, name), (exp, f"log {name}"), (sigmoid, f"logit {name}"), (above_one, f"log ({name} - 1)"))
    return next((words for one, words in known if one is link), f"{name} before its {type(link).__name__}")


def link_words(link: Transform) -> str:
    """The name of the link whose inverse `link` is, from the parameter to eta: `log`."""
    known = [(identity, "identity"), (exp, "log"), (sigmoid, "logit"), (above_one, "log of the excess over 1")]
    known += [(one, name) for links in (POSITIVE, REAL) for name, one in links.items()]
    return next((words for one, words in known if one is link), f"inverse of {type(link).__name__}")


def codomain_words(link: Transform) -> str:
    """Which numbers a link gives: `a positive number`."""
    known = {constraints.positive: "a positive number", constraints.unit_interval: "a number between 0 and 1"}
    return "a number above 1" if link is above_one else known.get(link.codomain, "a finite number")


class _Floor(torch.autograd.Function):
    """max(value, floor), whose gradient still reaches a floored value where it would raise it.

    A plain maximum has no gradient below the floor: a scale that fell there while the location was wrong
    would stay there, at thousands of nats a row.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, floor: Tensor) -> Tensor:
        return torch.maximum(value, floor)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        value, floor = inputs
        ctx.save_for_backward(value > floor)

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        (above,) = ctx.saved_tensors
        return torch.where(above | (gradient < 0), gradient, torch.zeros_like(gradient)), None


def floored(value: Tensor, floor: Tensor) -> Tensor:
    """max(value, floor) elementwise; an interior optimum is the same as without the floor.

    Args:
        value: a positive parameter, any shape.
        floor: scalar, in the same unit.
    """
    if not (torch.is_grad_enabled() and value.requires_grad):
        # A function of one's own takes long to be called.
        return torch.maximum(value, floor)
    return _Floor.apply(value, floor)
