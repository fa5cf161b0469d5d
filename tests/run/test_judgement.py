"""Which recalibrations a run is told to try."""

import pytest

from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.poisson import PoissonHead
from mlefw.run.judgement import _recalibrations


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (BernoulliHead(), {"cox", "isotonic", "temperature"}),
        (CategoricalHead(3), {"temperature"}),
        (GaussianHead(), {"scale"}),
        (PoissonHead(), set()),
    ],
    ids=["binary", "classes", "numbers", "counts"],
)
def test_those_that_take_what_a_head_predicts(head: Head, expected: set[str]) -> None:
    assert {*_recalibrations(head.double(), 1e6)} == expected
    assert _recalibrations(head.double(), 0.0) == ()
