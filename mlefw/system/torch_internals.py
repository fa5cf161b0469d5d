"""All names of torch used here that are private, and may change with a version of torch.

`tests/system/test_torch_internals.py` fails for each name that is gone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload as OpOverload
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode

NORMS = torch.ops.aten._foreach_norm.Scalar
"""The operation behind `norms`, as it is recorded in a graph."""


def norms(tensors: Sequence[Tensor], order: float = 2.0) -> list[Tensor]:
    """The norm of each tensor, a scalar each, by one kernel for all of them."""
    return list(torch._foreach_norm(list(tensors), order))


def scale_(tensors: Sequence[Tensor], factor: Tensor) -> None:
    """Multiply the tensors in place by a scalar, by one kernel for all of them."""
    torch._foreach_mul_(list(tensors), factor)


def copy_(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors of equal shapes, by one kernel for all of them."""
    torch._foreach_copy_(list(tensors), list(values))


def lerp_(tensors: Sequence[Tensor], towards: Sequence[Tensor], share: float) -> None:
    """Tensor += share · (towards − tensor) for each tensor in place, by one kernel for all of them."""
    torch._foreach_lerp_(list(tensors), list(towards), share)


def has_step_hooks(optimizer: Optimizer) -> bool:
    """Whether hooks are registered on the steps of an optimiser."""
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


def has_pass_hooks(whole: nn.Module) -> bool:
    """Whether forward or backward hooks are registered on a module or one of its submodules."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for module in whole.modules() for name in names)


def is_mutable(function: OpOverload) -> bool:
    """Whether an operation writes to one of its arguments."""
    return bool(function._schema.is_mutable)


def kernel(function: OpOverload) -> Callable[..., Any]:
    """The compiled function of an operation, which is faster to call than the operation itself."""
    return function._op


def storage_id(value: Tensor) -> int:
    """A number that is equal for tensors that share one storage, and for no others alive at that time."""
    return int(value.untyped_storage()._cdata)


def file_writer(writer: Any) -> Any:
    """What a writer of TensorBoard's summaries writes to; opened anew where it was closed."""
    return writer._get_file_writer()
