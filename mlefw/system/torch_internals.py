"""Every name of torch that it does not promise to keep, in one place: a new version is looked at here.

`tests/system/test_torch_internals.py` says which of them has moved, should one ever do so.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload as OpOverload
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

NORMS = torch.ops.aten._foreach_norm.Scalar
"""The kernel behind `norms`."""


def norms(tensors: Sequence[Tensor], order: float = 2.0) -> list[Tensor]:
    """The norm of each tensor, by one kernel for all of them."""
    return list(torch._foreach_norm(list(tensors), order))


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply the tensors in place by a scalar, by one kernel for all of them."""
    torch._foreach_mul_(list(tensors), factor)


def copy_(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Set the tensors in place, by one kernel for all of them."""
    torch._foreach_copy_(list(tensors), list(values))


def lerp_(tensors: Sequence[Tensor], towards: Sequence[Tensor], share: float) -> None:
    """Move the tensors in place by a share of the way towards others, by one kernel for all of them."""
    torch._foreach_lerp_(list(tensors), list(towards), share)


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether somebody looks at the steps of an optimiser."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def has_pass_hooks(whole: nn.Module) -> bool:
    """Whether somebody looks into the forward or backward pass of a module or of one of its parts."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for module in whole.modules() for name in names)


def is_mutable(function: OpOverload) -> bool:
    """Whether an operation writes to one of its arguments."""
    return bool(function._schema.is_mutable)


def kernel(function: OpOverload) -> Callable[..., Any]:
    """The operation without what Python does around it."""
    return function._op


def storage(value: Tensor) -> int:
    """What tells apart the memory that tensors lie in."""
    return int(value.untyped_storage()._cdata)
