"""Targets of a few distinct values under a density."""

import math
import warnings

import pytest
import torch

from mlefw.head.base import Head
from mlefw.head.censored import CensoredHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.rows.rows import Rows
from mlefw.schema.coarse import rounding, warn_of_coarse_target


def values(count: int, step: float, num_rows: int) -> torch.Tensor:
    return 1.0 + step * (torch.arange(num_rows, dtype=torch.float64) % count)


def rows(y: torch.Tensor) -> Rows:
    ones = torch.ones(len(y), dtype=torch.float64)
    return Rows(ones[:, None], y, ones, 0 * ones)


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (values(30, 0.1, 150), (30, 0.1, True)),
        (values(30, 0.1, 149), None),
        (values(31, 0.1, 1550), None),
        (values(1, 0.1, 100), None),
        (torch.tensor([0.0, 0.5, 1.25] * 5, dtype=torch.float64), (3, 0.5, False)),
        (torch.linspace(0, 1, 400, dtype=torch.float64), None),
        (torch.cat([values(3, 1.0, 20_000), torch.linspace(5, 9, 100)]), None),
    ],
)
def test_what_is_coarse(y: torch.Tensor, expected: tuple[int, float, bool] | None) -> None:
    found = rounding(y)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found[0], found[2]) == (expected[0], expected[2])
        assert found[1] == pytest.approx(expected[1], rel=1e-12)


def test_a_density_is_told_what_it_may_claim() -> None:
    with pytest.warns(UserWarning) as met:
        warn_of_coarse_target(GaussianHead(), rows(values(9, 0.5, 90)), "score")
    (said,) = (str(one.message) for one in met)
    assert "column 'score' (data.target) has 9 distinct values in 90 training rows, whole steps of 0.5 apart" in said
    assert f"{math.log(0.5):.4g} nats" in said
    assert "head=ordinal" in said
    assert "two columns with 0.25 less and 0.25 more" in said


@pytest.mark.parametrize(
    ("head", "y"),
    [
        (PoissonHead(), values(9, 1.0, 90)),
        (CensoredHead(GaussianHead()), values(9, 1.0, 90).unsqueeze(1).expand(-1, 2)),
        (GaussianHead(), torch.linspace(0, 1, 90, dtype=torch.float64)),
    ],
    ids=["mass", "bounds", "fine"],
)
def test_others_are_not(head: Head, y: torch.Tensor) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_coarse_target(head, rows(y), "score")
