"""Inverse links: from an unconstrained eta to a distribution parameter."""

import torch
from torch import Tensor
from torch.distributions.transforms import ExpTransform, Transform, identity_transform

identity: Transform = identity_transform
exp: Transform = ExpTransform()


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
    return _Floor.apply(value, floor)
