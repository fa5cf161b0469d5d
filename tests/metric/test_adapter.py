"""Metrics of torchmetrics behind the adapter, against the metrics themselves on repeated rows."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchmetrics
from torch.distributions import Bernoulli, Distribution, Normal
from torchmetrics import classification, regression

from mlefw.errors import UsageError
from mlefw.head.categorical import Categorical
from mlefw.metric.adapter import OfPrediction
from mlefw.testing.metric import check_metric

# torchmetrics says of some that they keep all rows.
pytestmark = pytest.mark.filterwarnings("ignore:Metric .* will save all targets:UserWarning")

N = 90
GENERATOR = torch.Generator().manual_seed(0)
LOC = torch.randn(N, generator=GENERATOR, dtype=torch.float64)
LOGITS = torch.randn(N, 3, generator=GENERATOR, dtype=torch.float64)
NUMBERS = LOC + torch.randn(N, generator=GENERATOR, dtype=torch.float64)
TWO = (NUMBERS > 0).double()
THREE = torch.randint(3, (N,), generator=GENERATOR)
WEIGHT = torch.arange(N, dtype=torch.float64).remainder(3)

Case = tuple[Callable[[], Any], Callable[[torch.Tensor], Distribution], torch.Tensor, torch.Tensor]


def normal(index: torch.Tensor) -> Distribution:
    return Normal(LOC[index], 1.0)


def two(index: torch.Tensor) -> Distribution:
    return Bernoulli(logits=LOC[index])


def three(index: torch.Tensor) -> Distribution:
    return Categorical(LOGITS[index])


ADDITIVE: dict[str, Case] = {
    "mean squared error": (lambda: regression.MeanSquaredError(), normal, NUMBERS, LOC),
    "its root": (lambda: regression.MeanSquaredError(squared=False), normal, NUMBERS, LOC),
    "mean absolute error": (lambda: regression.MeanAbsoluteError(), normal, NUMBERS, LOC),
    "r2": (lambda: torchmetrics.R2Score(), normal, NUMBERS, LOC),
    "brier, as an error of the mean": (lambda: regression.MeanSquaredError(), two, TWO, LOC.sigmoid()),
    "accuracy of two": (lambda: classification.BinaryAccuracy(), two, TWO, LOC.sigmoid()),
    "accuracy of three": (lambda: classification.MulticlassAccuracy(3), three, THREE, LOGITS.softmax(-1)),
    "accuracy by class": (lambda: classification.MulticlassAccuracy(3, average=None), three, THREE, LOGITS.softmax(-1)),
    "confusion": (lambda: classification.MulticlassConfusionMatrix(3), three, THREE, LOGITS.softmax(-1)),
}
WHOLE: dict[str, Case] = {
    "rank correlation": (lambda: regression.SpearmanCorrCoef(), normal, NUMBERS, LOC),
    "correlation": (lambda: regression.PearsonCorrCoef(), normal, NUMBERS, LOC),
    "auroc": (lambda: classification.BinaryAUROC(), two, TWO, LOC.sigmoid()),
    "average precision": (lambda: classification.MulticlassAveragePrecision(3), three, THREE, LOGITS.softmax(-1)),
}


def expected(inner: Any, forecast: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The metric itself, of the rows repeated."""
    inner.set_dtype(torch.float64)
    target = y if "regression" in type(inner).__module__ else y.long()
    inner.update(forecast.repeat_interleave(WEIGHT.long(), 0), target.repeat_interleave(WEIGHT.long(), 0))
    return inner.compute().double().reshape(-1)


@pytest.mark.parametrize("name", [*ADDITIVE, *WHOLE])
def test_the_figures_are_those_of_the_metric(name: str) -> None:
    make, predict, y, forecast = (ADDITIVE | WHOLE)[name]
    metric = OfPrediction("it", make())
    assert metric.has_exact == (name in WHOLE)
    metric.update(predict(torch.arange(N)), y, WEIGHT)
    found = metric.compute() | metric.exact(predict(torch.arange(N)), y, WEIGHT)
    value = expected(make(), forecast, y)
    assert list(found) == (["it"] if len(value) == 1 else [f"it_{k}" for k in range(len(value))])
    torch.testing.assert_close(torch.stack(list(found.values())), value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ADDITIVE)
def test_sums_add_up_over_blocks_as_those_of_any_metric(name: str) -> None:
    make, predict, y, _ = ADDITIVE[name]
    check_metric(OfPrediction("it", make()), predict, y)


@pytest.mark.parametrize(
    ("inner", "predict", "y", "words"),
    [
        (classification.BinaryAccuracy(), normal, NUMBERS, "is for classes, and the head predicts a Normal"),
        (regression.MeanSquaredError(), three, THREE, "is for numbers, and the head predicts a Categorical"),
    ],
)
def test_what_it_is_not_for_is_refused(inner: Any, predict: Any, y: torch.Tensor, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        OfPrediction("it", inner).update(predict(torch.arange(N)), y, WEIGHT)


def test_weights_that_are_no_counts_are_refused_by_name() -> None:
    metric = OfPrediction("mse", regression.MeanSquaredError())
    with pytest.raises(UsageError, match=r"metric\.mse: MeanSquaredError of torchmetrics takes no row weights"):
        metric.update(normal(torch.arange(N)), NUMBERS, WEIGHT + 0.5)
