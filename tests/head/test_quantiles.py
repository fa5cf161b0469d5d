"""Several quantiles at once: moments and CRPS by quadrature, the order of the levels, and a trained network."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import torch
from head_examples import FrozenQuantiles

from mlefw.errors import UsageError
from mlefw.fit import fit
from mlefw.head.quantiles import QuantilesHead

ETAS = [[-1.0, 0.5, 2.0, 0.2, 0.4, -0.3], [3.0, -2.0, 2.5, 0.0, 1.0, 0.5]]


def integral(function, at: FrozenQuantiles, *more: float) -> float:
    knots = np.unique([at.q[0] - 40 * at.tails[0], *at.q, *more, at.q[2] + 40 * at.tails[1]])
    return sum(scipy.integrate.quad(function, a, b, epsabs=1e-13, epsrel=1e-12)[0] for a, b in pairwise(knots))


@pytest.mark.parametrize("eta", ETAS)
def test_moments_and_the_crps_by_quadrature(eta: list[float]) -> None:
    one, at = QuantilesHead().distribution(torch.tensor(eta).double()), FrozenQuantiles(eta)
    eta = np.array(eta)
    start = at.q[0] - 40 * at.tails[0]
    # By parts: E Y = start + ∫ (1 − F), and E (Y − start)² = 2 ∫ (v − start) (1 − F).
    mean = start + integral(lambda v: 1 - at.cdf(v), at)
    square = 2 * integral(lambda v: (v - start) * (1 - at.cdf(v)), at)
    assert float(one.mean) == pytest.approx(mean, abs=1e-9)
    assert float(one.variance) == pytest.approx(square - (mean - start) ** 2, rel=1e-8)
    for y in (at.q[0] - 1.0, at.q[0] + 0.1, at.q[1], 0.3 * at.q[1] + 0.7 * at.q[2], at.q[2] + 2.0):
        score = integral(lambda v: (at.cdf(v) - (v >= y)) ** 2, at, y)  # noqa: B023
        assert float(one.crps(torch.tensor(y))) == pytest.approx(score, abs=1e-9)


def test_quantiles_that_are_equal_have_no_density_between_them() -> None:
    one = QuantilesHead().distribution(torch.tensor([[1.0, 1.0, 1.0, 0, 0, 0], [0.0, 2.0, 2.0, 0, 0, 0]]).double())
    assert one.cdf(torch.tensor([1.0, 1.0]).double()).tolist() == pytest.approx([0.9, 0.3])
    assert one.icdf(torch.tensor([0.3, 0.7]).double()).tolist() == [1.0, 2.0]
    assert one.crps(torch.tensor([3.0, 2.0]).double()).isfinite().all()
    assert one.mean.tolist() == pytest.approx([1.0, 0.1 * -0.5 + 0.4 * 1.0 + 0.4 * 2.0 + 0.1 * 2.0])


def test_sorting_never_raises_the_pinball_losses() -> None:
    random = torch.Generator().manual_seed(0)
    eta, y = torch.randn(500, 3, generator=random).double(), torch.randn(500, generator=random).double()
    one = QuantilesHead(scale=1.0).distribution(eta)
    loss = [torch.maximum(one.p * r, (one.p - 1) * r).sum(1) for r in (y[:, None] - one.at, y[:, None] - eta)]
    assert bool((one.at.diff() >= 0).all())
    assert bool((loss[0] <= loss[1] + 1e-15).all())
    assert float((loss[1] - loss[0]).max()) > 0.1


@pytest.mark.parametrize("levels", [[], [0.5], [0.5, 0.1], [0.1, 0.1], [0.0, 0.5], [0.5, 1.0], [0.5, 0.5 + 1e-14]])
def test_other_levels_are_refused(levels: list[float]) -> None:
    with pytest.raises(UsageError, match=r"head\.levels"):
        QuantilesHead(levels)


@pytest.mark.filterwarnings("default")
def test_a_network_predicts_quantiles_in_order_far_outside_the_training_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, 150)
    rows = pd.DataFrame({"x": x, "y": 2 * x + (1.2 + x) * random.normal(size=150)})
    few = ("trainer.max_epochs=8", "model.hidden=[8]", "logger=none", "report=false", "plots=false")
    model = fit(rows, "y", "head=quantiles", "head.levels=[0.2,0.5,0.8]", "inputs=standard", *few, run_dir="r")
    found = model.predict(pd.DataFrame({"x": [-30.0, -5.0, 0.0, 5.0, 30.0]}), quantiles=[0.5, 0.95])
    names = ["quantile_0.2", "quantile_0.5", "quantile_0.8", "quantile_0.95"]
    assert [name for name in found if name.startswith("quantile")] == names
    assert bool((found[names].diff(axis=1).iloc[:, 1:] >= 0).all().all())
    train = model.summary["metrics"]["train"]
    assert train["pinball"] == pytest.approx(np.mean([train[f"pinball_{level}"] for level in (0.2, 0.5, 0.8)]))
    assert 0 <= train["crossing"] <= 1
