"""The arithmetic of Adam, AdamW and SGD, on one tensor and in place.

`torch.optim` computes the formulas itself wherever a step runs eagerly on one network. They stand here for the two
places where it cannot: a graph for a compiler, in which the learning rate is a tensor, and a population of networks,
the parameters of one in each row of a matrix, with a rate for each row. The functions behind torch's optimisers
(`torch.optim.adam.adam`, `torch.optim.sgd.sgd`) take one rate for all entries of a tensor.

In all of them `group` is an entry of an optimiser's `param_groups`, and `rate`, in place of the group's own, a scalar
tensor or one that broadcasts over the parameters. `tests/training/test_update_rules.py` holds them to torch's results.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

Group = Mapping[str, Any]


def adam(
    p: Tensor, gradient: Tensor, mean: Tensor, square: Tensor, count: Tensor | float, rate: Tensor, group: Group
) -> Tensor:
    """One step of Adam, or of AdamW, whose decay is decoupled (Kingma and Ba, 2015; Loshchilov and Hutter, 2019).

    Args:
        p: the parameters, changed in place, as are the moments.
        gradient: of the loss; shaped like p.
        mean: the running mean of gradients (torch: `exp_avg`), shaped like p.
        square: the running mean of squared gradients (torch: `exp_avg_sq`), shaped like p.
        count: number of steps, this one included.
        rate: the learning rate.
        group: `betas`, `eps`, `weight_decay` and `decoupled_weight_decay` are read.

    Returns:
        The divisor of the step, shaped like p: see `adam_divisor`.
    """
    (beta1, beta2), decay = group["betas"], group["weight_decay"]
    if decay and group["decoupled_weight_decay"]:
        p.mul_((1 - rate * decay).to(p.dtype))
    elif decay:
        gradient = gradient + decay * p
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    divisor = adam_divisor(square, count, group)
    p.sub_((rate / (1 - beta1**count)).to(p.dtype) * mean / divisor)
    return divisor


def adam_divisor(square: Tensor, count: Tensor | float, group: Group) -> Tensor:
    """√(square / (1 − β₂ᵏ)) + ε after k = `count` steps: a constant unit gradient moves an entry by rate / divisor."""
    return (square.sqrt() / (1 - group["betas"][1] ** count) ** 0.5).add_(group["eps"])


def sgd(p: Tensor, gradient: Tensor, buffer: Tensor | None, rate: Tensor, group: Group) -> Tensor | None:
    """One step of stochastic gradient descent, with momentum as torch defines it.

    Args:
        p: the parameters, changed in place, as is the buffer.
        gradient: of the loss; shaped like p.
        buffer: the running sum of gradients (torch: `momentum_buffer`), shaped like p; None before the first step.
        rate: the learning rate.
        group: `momentum`, `dampening`, `nesterov` and `weight_decay` are read.

    Returns:
        The buffer, which the first step makes; None without momentum.
    """
    if group["weight_decay"]:
        gradient = gradient + group["weight_decay"] * p
    if group["momentum"]:
        if buffer is None:
            buffer = gradient.clone()
        else:
            buffer.mul_(group["momentum"]).add_(gradient, alpha=1 - group["dampening"])
        gradient = gradient + group["momentum"] * buffer if group["nesterov"] else buffer
    p.sub_(rate.to(p.dtype) * gradient)
    return buffer


def sgd_gain(group: Group) -> float:
    """By how much a step moves an entry under a constant unit gradient in the long run, in units of the learning rate.

    With momentum μ and dampening τ it is (1 − τ) / (1 − μ); without momentum 1.
    """
    momentum: float = group["momentum"]
    return (1 - group["dampening"] if momentum else 1.0) / (1 - momentum)
