"""Inverse links: from an unconstrained eta to a distribution parameter."""

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


identity: Transform = identity_transform
exp: Transform = ExpTransform()
sigmoid: Transform = _Sigmoid()
above_one: Transform = _AboveOne()


def eta_words(link: Transform, name: str) -> str:
    """What eta is of the parameter that the link makes of it: `log scale`."""
    known = ((identity, name), (exp, f"log {name}"), (sigmoid, f"logit {name}"), (above_one, f"log ({name} - 1)"))
    return next((words for one, words in known if one is link), f"{name} before its {type(link).__name__}")


def link_words(link: Transform) -> str:
    """The name of the link whose inverse `link` is, from the parameter to eta: `log`."""
    known = ((identity, "identity"), (exp, "log"), (sigmoid, "logit"), (above_one, "log of the excess over 1"))
    return next((words for one, words in known if one is link), f"inverse of {type(link).__name__}")


def codomain_words(link: Transform) -> str:
    """Which numbers a link gives: `a positive number`."""
    known = ((exp, "a positive number"), (sigmoid, "a number between 0 and 1"), (above_one, "a number above 1"))
    return next((words for one, words in known if one is link), "a finite number")


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
