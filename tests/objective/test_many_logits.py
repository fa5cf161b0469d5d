"""Steps with very many logits compute the likelihood in 32 bit: nearly that of 64 bit, and only where they may."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mlefw.head.categorical import CategoricalHead
from mlefw.objective import objective as module
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows

K, N, T = 301, 40, 7


class Table(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(5, K, generator=torch.Generator().manual_seed(1)).to(dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x]


def loss_and_gradient(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Rows, Objective]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(5, (N, T), generator=generator), torch.randint(K, (N, T), generator=generator)
    weight = torch.randint(3, (N, T), generator=generator).double()
    rows = Rows(x, y, weight, torch.zeros(N, T, dtype=torch.float64))
    head = CategoricalHead(K)
    head.center.copy_(torch.linspace(-1, 1, K))
    objective = Objective(Table(dtype), head, NoPrior(), float(weight.sum()))
    loss = objective.descent(Batch(rows, 1.0))
    loss.backward()
    return loss.detach(), objective.model.table.grad.double(), rows, objective


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_loss_and_its_gradient_are_those_of_64_bit(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = loss_and_gradient(dtype)
    monkeypatch.setattr(module, "_MOST_WIDE", N * T * K - 1)
    loss, gradient, rows, objective = loss_and_gradient(dtype)
    logits = objective.model.table.detach().double()[rows.x] + objective.head.center
    each = cross_entropy(logits.flatten(0, 1), rows.y.flatten(), reduction="none")
    expected = float((rows.weight.flatten() * each).sum() / rows.weight.sum())
    assert float(loss) == pytest.approx(expected, abs=1e-6) and loss.dtype == torch.float64
    torch.testing.assert_close(gradient, wide[1], rtol=1e-4, atol=1e-7)
    # In 64 bit nothing is narrowed.
    assert (float(loss) == float(wide[0])) == (dtype == torch.float64)
