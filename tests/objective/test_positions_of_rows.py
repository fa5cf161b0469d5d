"""The objective on rows of several observations, against torch's cross-entropy on the positions that are not masked."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.objective.objective import Objective, etas, evaluate, not_finite, rows_at_once
from mlefw.prior.none import NoPrior
from mlefw.rows.batch import Batch
from mlefw.rows.rows import Rows, constant, observation_rows
from mlefw.training.recovery import dominating_rows
from mlefw.training.step import Step

N, T, K = 13, 6, 5


class PerPosition(nn.Module):
    """Bytes (n, T) to logits (n, T, K), each position by itself."""

    replayable = True

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, K)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.long())


def rows() -> Rows:
    generator = torch.Generator().manual_seed(1)
    x = torch.randint(9, (N, T), generator=generator, dtype=torch.uint8)
    y = torch.randint(K, (N, T), generator=generator, dtype=torch.uint8)
    weight = torch.randint(3, (N, T), generator=generator).double()
    weight[4] = 0
    return Rows(x, y, weight, constant(0.0, (N, T)))


def objective() -> Objective:
    torch.manual_seed(0)
    return Objective(PerPosition(), CategoricalHead(K), NoPrior(), rows().population)


def by_hand(model: Objective, data: Rows) -> Tensor:
    """Cross-entropy of each position in float64, (n, T)."""
    logits = model.model(data.x).detach().double()
    return cross_entropy(logits.flatten(0, 1), data.y.flatten().long(), reduction="none").view(len(logits), T)


def test_the_nll_has_the_shape_of_the_weights_and_is_the_cross_entropy() -> None:
    data, model = rows(), objective()
    nll = model.nll(data).detach()
    assert nll.shape == data.weight.shape
    torch.testing.assert_close(nll, by_hand(model, data), rtol=1e-12, atol=1e-12)


def test_training_descends_the_mean_over_observations_and_masks_hide_theirs() -> None:
    data, model = rows(), objective()
    seen = data.weight > 0
    logits = model.model(data.x).double()[seen]
    expected = (
        cross_entropy(logits, data.y[seen].long(), reduction="none") * data.weight[seen]
    ).sum() / data.population
    (slope,) = torch.autograd.grad(expected, list(model.model.parameters()))
    loss = model.descent(Batch(data, 1.0))
    (got,) = torch.autograd.grad(loss, list(model.model.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
    torch.testing.assert_close(got, slope, rtol=1e-6, atol=1e-9)
    assert model(data).item() == pytest.approx(expected.item(), rel=1e-13)


def test_steps_recorded_in_slices_or_by_autograd_lead_to_equal_weights() -> None:
    found = []
    for max_rows, replayable in ((0, True), (4, True), (0, False)):
        model = objective()
        model.replayable = replayable
        step = Step(model, max_rows=max_rows)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(3):
            step(Batch(rows(), 1.0), optimizer, optimizer)
        assert bool(step.gradient.tapes) == (replayable and not max_rows)
        found.append(model.model.table.weight.detach())
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[2], found[0], rtol=0, atol=0)


@pytest.mark.parametrize("block", [None, 4])
def test_an_evaluation_has_means_of_rows_and_the_mean_of_all_observations(block: int | None) -> None:
    data, model = rows(), objective()
    found, expected = evaluate(model, data, block), by_hand(model, data)
    assert found.eta is not None and found.eta.shape == (N, T, K) and found.nll.shape == (N,)
    seen = data.weight > 0
    mean = math.fsum((data.weight[seen] * expected[seen]).tolist()) / data.population
    assert found.mean(data) == pytest.approx(mean, rel=1e-13)
    assert found.nll[4] == 0
    assert found.nll[2].item() == pytest.approx((data.weight[2] @ expected[2] / data.weight[2].sum()).item(), rel=1e-13)
    cut = observation_rows(data)
    assert cut.num_rows == int(seen.sum())


def test_eta_is_kept_up_to_a_number_of_cells_and_blocks_are_sized_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = rows(), objective()
    monkeypatch.setattr("mlefw.objective.objective._MOST_KEPT", N * T * K - 1)
    assert evaluate(model, data).eta is None
    monkeypatch.setattr("mlefw.objective.objective._CELLS", 3 * T * K)
    assert rows_at_once(model.head, data) == 3
    assert [part.num_rows for part, _ in etas(model, data)] == [3, 3, 3, 3, 1]
    images = Rows(torch.zeros(50, 3, 20, 20), torch.zeros(50), constant(1.0, (50,)), constant(0.0, (50,)))
    monkeypatch.setattr("mlefw.objective.objective._CELLS", 7 * 1200)
    assert rows_at_once(GaussianHead("shared"), images) == 7


@pytest.mark.parametrize("shape", [(T, K + 1), (K,), (T + 1, K)])
def test_an_output_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), *shape)

    data = rows()
    with pytest.raises(ValueError, match=rf"Wrong returned shape \({N}, .*expected \({N}, {T}, {K}\)"):
        Objective(Wrong(), CategoricalHead(K), NoPrior(), 1.0).eta(data.x, data.offset)


def test_rows_that_are_not_finite_or_dominate_are_named_by_row() -> None:
    data, model = rows(), objective()
    offset = torch.zeros(N, T).double()
    offset[7, 3] = math.inf
    assert "position 7 of the rows" in not_finite(model, data._replace(offset=offset))
    weight = data.weight.clone()
    weight[9, 2] = 1e6
    assert dominating_rows(model, data._replace(weight=weight)) == [9]
