"""Checks on the state that a checkpoint holds of the parts of a training, before they take it up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from mlefw.distributed import sharding
from mlefw.errors import MlefwError, UsageError

Content = dict[str, Any]
"""What a checkpoint holds by name: tensors, plain values and containers of them."""


@contextmanager
def naming_the_checkpoint() -> Iterator[None]:
    """Turn an error inside the block, which takes up the content of a checkpoint, into one that names the checkpoint.

    Raises:
        UsageError: for any error but one of mlefw.
    """
    try:
        yield
    except MlefwError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"the checkpoint is damaged: the run cannot go on from it ({reason})") from error


def check_form(what: str, known: Any, stored: Any) -> None:
    """Hold a stored state to the names, lengths, shapes and types of the present one.

    Args:
        what: the part, for the message.
        known: its present state; where that is empty, a stored container may have anything in it, and where it is
            None, a stored value may be any plain one, or a tensor.
        stored: what the checkpoint has.

    Raises:
        UsageError: they differ.
    """
    if known is None:
        fits = isinstance(stored, bool | int | float | str | Tensor | None)
    elif isinstance(known, dict):
        fits = isinstance(stored, dict) and (not known or known.keys() == stored.keys())
    elif isinstance(known, list | tuple):
        fits = isinstance(stored, list | tuple) and (not known or len(known) == len(stored))
    elif isinstance(known, Tensor):
        fits = isinstance(stored, Tensor) and (not known.numel() or known.shape == stored.shape)
    elif isinstance(known, bool) or not isinstance(known, int | float):
        fits = isinstance(stored, type(known))
    else:
        fits = isinstance(stored, int | float) and not isinstance(stored, bool)
    if not fits:
        expected = "a plain value" if known is None else _form(known)
        raise UsageError(f"the checkpoint is damaged: {what} is {_form(stored)}: expected {expected}")
    for key in known if isinstance(known, dict) else range(len(known)) if isinstance(known, list | tuple) else ():
        check_form(f"{what}.{key}", known[key], stored[key])


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, dict):
        return f"a dict of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"of type {type(value).__name__}"


def check_optimizer(optimizer: Optimizer) -> None:
    """Hold the state that an optimiser has taken up to the form of its state after one step with gradients of zero.

    Raises:
        UsageError: the form or a shape differs, or a number is not finite.
    """
    state = optimizer.state_dict()["state"]
    known = _state_after_zero_step(optimizer) if type(optimizer).__module__.startswith("torch.optim.") else {}
    for key, one in state.items():
        expected = known.get(key, {})
        check_form("the state of the optimiser", expected, {name: one.get(name) for name in expected})
    listed = [item for one in state.values() for value in one.values() if isinstance(value, list) for item in value]
    held = [item for one in state.values() for item in one.values() if isinstance(item, Tensor)]
    if not all(isinstance(item, Tensor | None) for item in listed):
        raise UsageError("the checkpoint is damaged: the state of the optimiser lists a value that is not a tensor")
    if not all(bool(item.isfinite().all()) for item in (*held, *listed) if isinstance(item, Tensor)):
        raise UsageError("the checkpoint is damaged: the state of the optimiser holds a value that is not finite")


def _state_after_zero_step(optimizer: Any) -> Any:
    """The state of a new optimiser of the same class and settings after a step with gradients of zero."""
    twins = [[torch.zeros_like(p).requires_grad_() for p in group["params"]] for group in optimizer.param_groups]
    groups = [{**group, "params": twin} for group, twin in zip(optimizer.param_groups, twins, strict=True)]
    for p in (p for twin in twins for p in twin):
        p.grad = torch.zeros_like(p)
    new = type(optimizer)(groups)
    with sharding.mixed(p for twin in twins for p in twin):
        new.step(lambda: torch.zeros(()))
    return new.state_dict()["state"]
