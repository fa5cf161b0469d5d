"""What every average of the weights must do: one table of examples, every test over all of them."""

import math
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

import mlefw.average
from mlefw.average.base import Average
from mlefw.average.ema import Ema
from mlefw.errors import UsageError
from mlefw.testing.average import check_average
from mlefw.training.averaging import Averaging

EXAMPLES: dict[str, list[Average]] = {"ema": [Ema(), Ema(0.3), Ema(1e6)]}
CASES = [(name, average) for name, averages in EXAMPLES.items() for average in averages]


def test_every_member_has_an_example() -> None:
    modules = {module.name for module in pkgutil.iter_modules(mlefw.average.__path__)}
    assert modules - {"base"} == set(EXAMPLES)
    yaml = {file.stem for file in Path("conf/average").glob("*.yaml")}
    assert yaml - {"none"} == set(EXAMPLES)


@pytest.mark.parametrize(("name", "average"), CASES)
def test_it_does_what_mlefw_counts_on(name: str, average: Average) -> None:
    check_average(average)


@pytest.mark.parametrize("steps", [[4] * 30, [1] * 60, [7] * 5 + [3] * 5 + [1] * 20])
def test_ema_weighs_each_step_by_its_length_and_age(steps: list[int]) -> None:
    """The sum written out: a step of length l that ended at time t weighs (e^(l/h) − 1) e^(t − l), over the sum."""
    horizon, values, ages = 2.0, list[float](), list[tuple[float, float]]()
    draw = np.random.default_rng(0)
    found, average = torch.zeros(1, dtype=torch.float64), Ema(horizon)
    for epoch, number in enumerate(steps):
        for k in range(number):
            end, length = epoch + (k + 1) / number, 1 / number
            values.append(float(draw.normal()))
            ages.append((end, length))
            found += average.share(end, length) * (values[-1] - found)
    weights = [math.exp(end / horizon) - math.exp((end - length) / horizon) for end, length in ages]
    assert float(found) == pytest.approx(np.average(values, weights=weights), rel=1e-10)


@pytest.mark.parametrize("horizon", [0.0, -1.0, math.inf, math.nan])
def test_a_horizon_that_is_none_is_refused(horizon: float) -> None:
    with pytest.raises(UsageError, match=r"average\.horizon=.*expected a positive number of epochs"):
        Ema(horizon)


def test_tensors_hold_weights_within_a_block_of_steps_and_the_average_outside() -> None:
    weights, zeros = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 1.0])
    averaging = Averaging(Ema(1.0), [weights, zeros], [torch.tensor([False, False]), torch.tensor([True, True])])
    for step in range(3):
        averaging.exchange()
        weights.add_(1.0)
        zeros[step % 2] = 0.0
        averaging.update(step + 1.0, 1.0)
        assert weights.tolist() == [step + 2.0, step + 3.0]
        averaging.exchange()
    mass = [math.exp(k) for k in range(3)]
    assert weights.tolist() == pytest.approx([np.average([2, 3, 4], weights=mass), np.average([3, 4, 5], weights=mass)])
    assert zeros.tolist() == [0.0, 0.0]
    assert averaging.state[0].tolist() == [4.0, 5.0]


class Wrong(Average):
    """A share that is none."""

    def share(self, progress: float, length: float) -> float:
        return 1.5


def test_a_share_that_is_none_ends_the_training() -> None:
    averaging = Averaging(Wrong(), [torch.zeros(1)])
    averaging.exchange()
    with pytest.raises(UsageError, match=r"Wrong\.share\(1, 1\) is 1\.5: expected above 0 and at most 1"):
        averaging.update(1.0, 1.0)
