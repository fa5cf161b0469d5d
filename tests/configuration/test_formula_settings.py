"""`formula=` and `head.terms` become terms of each distribution parameter; what they cannot mean is refused."""

from copy import deepcopy
from typing import Any

import pytest

from mlefw.configuration.read import read_settings
from mlefw.configuration.terms import insert_terms
from mlefw.errors import UsageError

Node = dict[str, Any]


def settings(*given: str) -> Node:
    return read_settings("train", ["data=csv", "data.path=d.csv", *given], [], [])


TERMS: dict[tuple[str, ...], Node] = {
    ("formula=y ~ x + bs(age, df=5) | z", "head=heteroscedastic"): {"loc": "x + bs(age, df=5)", "scale": "z"},
    # A part that is missing is one value for all rows, also where the head would predict the parameter.
    ("formula=y ~ x", "head=heteroscedastic"): {"loc": "x"},
    ("formula=y ~ x | 1 + w", "head=gaussian"): {"loc": "x", "scale": "1 + w"},
    ("formula=y ~ 0 + x", "head=poisson"): {"rate": "0 + x"},
    # A parameter without a formula keeps the features, as a network or linear.
    ("data.target=y", "head.terms.scale=z"): {"loc": None, "scale": "z"},
    ("data.target=y", "head.terms.loc=x", "head.terms.scale=0 + z"): {"loc": "x", "scale": "0 + z"},
    ("formula=y ~ x", "head.terms.scale=z"): {"loc": "x", "scale": "z"},
    ("formula=y ~ x | C(g, contr.treatment(base='south'))",): {
        "loc": "x",
        "scale": "C(g, contr.treatment(base='south'))",
    },
    # A head around another one has the parameters of both.
    ("formula=y ~ x | z", "head=hurdle", "head.component=poisson"): {"rate": "x", "nonzero": "z"},
    ("formula=[low, high] ~ x", "head=censored", "head.component=weibull"): {"scale": "x"},
    # All columns of eta of a head without named parameters have one formula.
    ("formula=y ~ x", "head=categorical"): {"eta": "x"},
}


@pytest.mark.parametrize("given", TERMS, ids=" ".join)
def test_terms_by_parameter(given: tuple[str, ...]) -> None:
    config = settings(*given)
    assert config["data"]["terms"] == TERMS[given]
    assert config["data"]["target"] == (["low", "high"] if "head=censored" in given else "y")
    assert "terms" not in config["head"]
    is_varying = "scale" in TERMS[given] and "head=censored" not in given
    assert config["head"].get("scale", "shared") == ("predicted" if is_varying else "shared")


def test_a_stored_configuration_stays_as_it_is() -> None:
    config = settings("formula=y ~ x | z", "data.offset={scale: a}")
    again = deepcopy(config)
    insert_terms(again)
    assert again == config


SHIFTS: dict[tuple[str, ...], tuple[Node, str | None]] = {
    ("data.offset={loc: a, scale: my b}", "head=heteroscedastic"): ({"loc": ["a"], "scale": ["`my b`"]}, None),
    # The name of a column alone is the offset of the first parameter, as it is without a formula.
    ("data.offset=a", "formula=y ~ x | z"): ({}, "a"),
    ("data.variance_weight=w", "head=gaussian"): ({"scale": ["-0.5*log(w)"]}, None),
    ("data.variance_weight=w", "head=gamma"): ({"dispersion": ["-1*log(w)"]}, None),
}


@pytest.mark.parametrize("given", SHIFTS, ids=" ".join)
def test_offsets_and_weights_of_the_variance(given: tuple[str, ...]) -> None:
    data = settings("data.target=y", *given)["data"]
    assert (data.get("shifts") or {}, data["offset"]) == SHIFTS[given]


REFUSED = {
    ("formula=y ~ x | z | w",): "has 3 parts, and the head has 2 parameters: loc, scale",
    ("formula=y ~ x | z", "head=poisson"): "has 2 parts",
    ("formula=y ~ x", "head=poisson", "head.terms.rate=z"): "both hold terms of rate",
    ("formula=y ~ x", "data.target=other"): "expected one of them",
    ("formula=y ~ x + loog(z)",): "unknown function 'loog'.*did you mean log",
    ("formula=log(y) ~ x",): "the left side 'log\\(y\\)' is no column",
    ("formula=y x",): "expected a target, a ~ and terms",
    ("formula=y ~ x |",): "part 2 is empty",
    ("data.target=y", "head.terms.scal=z"): "no parameter 'scal', but loc, scale; did you mean 'scale'",
    ("data.target=y", "head.terms.scale={__import__('os').system('id')}"): "head.terms.scale",
    ("data.target=y", "data.offset={rate: a}"): "no parameter 'rate', but loc, scale",
    ("data.target=y", "data.variance_weight=w", "head=poisson"): "none to learn.*data.weight",
    ("data.target=y", "data.variance_weight=w", "head=gaussian_fixed"): "none to learn",
}


@pytest.mark.parametrize("given", REFUSED, ids=" ".join)
def test_what_a_formula_cannot_mean_is_refused(given: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"(?s){REFUSED[given]}"):
        settings(*given)
