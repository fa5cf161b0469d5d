"""A recorded computation against the computation: what it asks twice, and what it may not share."""

import pytest
import torch
from torch import Tensor

from mlefw.objective.tape import NotReplayableError, Tape

X = torch.tensor([1.0, -2.0, 3.0])


def changed_result(x: Tensor) -> list[Tensor]:
    first, second = x * 2, x * 2
    second.add_(1)
    return [first.sum(), second.sum()]


def changed_through_a_view(x: Tensor) -> list[Tensor]:
    first, second = x * 2, x * 2
    second[0] = 5.0
    return [first.sum(), second.sum()]


def changed_input(x: Tensor) -> list[Tensor]:
    y = x.clone()
    before = y.sum()
    y.mul_(3)
    return [before + 1, y.sum() + 1]


def changed_list(x: Tensor) -> list[Tensor]:
    first, second = torch._foreach_mul([x, x], 2.0), torch._foreach_mul([x, x], 2.0)
    torch._foreach_add_(second, 1.0)
    return [first[0].sum(), first[1].sum(), second[0].sum(), second[1].sum()]


def signed_zeros(x: Tensor) -> list[Tensor]:
    return [(x / 0.0).amax(), (x / -0.0).amax(), (x + 1).sum(), (x + 1.0).sum(), (x + True).sum()]


def parts(x: Tensor) -> list[Tensor]:
    (first, *_), (other, last) = x.split([1, 2]), x.split([1, 2])
    return [first + other, last.sum(), x.split([2, 1])[1].sum()]


@pytest.mark.parametrize(
    "function", [changed_result, changed_through_a_view, changed_input, changed_list, signed_zeros, parts]
)
def test_a_tape_says_what_the_function_says(function):
    tape = Tape(function, [X])
    for x in (X, X + 0.5, -X):
        for found, expected in zip(tape(x), function(x), strict=True):
            assert torch.equal(found, expected)


def test_what_is_asked_twice_is_computed_once():
    def function(x: Tensor) -> list[Tensor]:
        return [torch.where(x > 0, x, 0.0).sum() + torch.where(x > 0, x, 0.0).sum() * torch.where(x > 0, x, 1.0).sum()]

    recorded = Tape(function, [X])
    assert recorded(X)[0] == function(X)[0]
    # gt; two fillings, each with its number; two sums; times and plus.
    assert sum("(" in line for line in recorded._whole.splitlines()[1:]) == 9


def test_random_numbers_are_drawn_twice():
    tape = Tape(lambda x: [torch.rand_like(x) - torch.rand_like(x)], [X])
    assert tape(X)[0].abs().min() > 0


def test_outputs_are_tensors_of_their_own():
    tape = Tape(lambda x: [x * 2, x * 2], [X])
    with torch.inference_mode():
        first, second = tape(X)
        first.zero_()
        assert torch.equal(second, X * 2)


def test_sparse_tensors_are_refused():
    sparse = torch.eye(3).to_sparse()
    with pytest.raises(NotReplayableError, match="sparse"):
        Tape(lambda x: [sparse @ x.unsqueeze(1)], [X])
