"""torch still has the names that it does not promise to keep, and they do what mlefw takes them to do."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mlefw.system import torch_internals

WHERE = "mlefw/system/torch_internals.py has to follow"


@pytest.mark.parametrize("order", [2.0, float("inf")])
def test_norms_are_those_of_each_tensor(order: float) -> None:
    tensors = [torch.randn(3, 2, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
    expected = [torch.linalg.vector_norm(one, order) for one in tensors]
    assert_close(torch_internals.norms(tensors, order), expected, msg=f"torch._foreach_norm is another: {WHERE}")


def test_scaling_is_in_place() -> None:
    tensors = [torch.ones(2), torch.full((3,), 2.0)]
    torch_internals.scale_(tensors, torch.tensor(0.5))
    assert [one.tolist() for one in tensors] == [[0.5] * 2, [1.0] * 3], f"torch._foreach_mul_ is another: {WHERE}"


@pytest.mark.parametrize("register", ["register_step_pre_hook", "register_step_post_hook"])
def test_hooks_of_a_step_are_seen(register: str) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert not torch_internals.has_step_hooks(optimizer)
    handle = getattr(optimizer, register)(lambda *_: None)
    assert torch_internals.has_step_hooks(optimizer), f"torch keeps hooks of a step elsewhere: {WHERE}"
    handle.remove()
    assert not torch_internals.has_step_hooks(optimizer)


@pytest.mark.parametrize(
    "register",
    [
        *("register_forward_hook", "register_forward_pre_hook"),
        *("register_full_backward_hook", "register_full_backward_pre_hook"),
    ],
)
def test_hooks_of_a_pass_are_seen_in_every_part(register: str) -> None:
    whole = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert not torch_internals.has_pass_hooks(whole)
    getattr(whole[0], register)(lambda *_: None)
    assert torch_internals.has_pass_hooks(whole), f"torch keeps hooks of a pass elsewhere: {WHERE}"


def test_operations_say_whether_they_write_and_have_a_kernel() -> None:
    add, add_ = torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor
    assert isinstance(add, torch_internals.OpOverload)
    assert (torch_internals.is_mutable(add), torch_internals.is_mutable(add_)) == (False, True), WHERE
    found = torch_internals.kernel(add)(torch.ones(2), torch.ones(2))
    assert found.tolist() == [2.0, 2.0], f"torch keeps the kernel of an operation elsewhere: {WHERE}"


def test_views_lie_in_the_memory_of_their_tensor() -> None:
    whole = torch.zeros(4)
    assert torch_internals.storage_id(whole) == torch_internals.storage_id(whole[1:]), WHERE
    assert torch_internals.storage_id(whole) != torch_internals.storage_id(torch.zeros(4)), WHERE


def test_a_dispatch_mode_sees_every_operation() -> None:
    seen = []

    class Mode(torch_internals.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Mode():
        torch_internals.norms([torch.ones(2)])
    assert torch_internals.NORMS in seen, f"torch has another kernel behind norms: {WHERE}"
