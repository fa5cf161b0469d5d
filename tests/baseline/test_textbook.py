"""`mlefw baseline` on the data sets of textbooks, from a CSV file to `baseline.json`, against the oracles."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from exact_oracles import Sample, data, estimate, varied
from pyarrow import csv

from mlefw.command import baseline
from mlefw.configuration.read import read_settings, settings_of
from mlefw.errors import UsageError


def run(folder: Path, *overrides: str) -> dict[str, Any]:
    """`mlefw baseline` without a process of its own: what it wrote."""
    config = read_settings("baseline", overrides, [], ())
    run_dir = folder / "run"
    baseline.run(settings_of({**config, "run_dir": str(run_dir)}), run_dir)
    content: dict[str, Any] = json.loads((run_dir / "baseline.json").read_text(encoding="utf-8"))
    return content


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., list[str]]:
    """Writes a sample as a CSV file; the overrides that read it."""

    def write(of: Sample, **columns: Any) -> list[str]:
        table = dict(zip(of.names, of.x.T, strict=True)) | {"target": of.y, "times": of.weight, "moved": of.offset}
        csv.write_csv(pa.table({name: pa.array(column) for name, column in (table | columns).items()}), path)
        roles = ["data.target=target", "data.weight=times", "data.offset=moved"]
        quoted = ",".join(f"'{name}'" for name in (*of.names, *(set(columns) - {"target"})))
        return ["data=csv", f"data.path={path}", *roles, f"data.features=[{quoted}]"]

    path = tmp_path / "data.csv"
    return write


CASES = [
    ("gaussian", "longley", "plain"),
    ("gaussian", "stackloss", "weight and offset"),
    ("gaussian_fixed", "scotland", "plain"),
    ("laplace", "engel", "plain"),
    ("heteroscedastic", "engel", "plain"),
    ("bernoulli", "spector", "weight and offset"),
    ("bernoulli", "star98", "plain"),
    ("categorical", "anes96", "plain"),
    ("poisson", "cpunish", "weight and offset"),
    ("poisson", "randhie", "plain"),
]


@pytest.mark.parametrize(("head", "name", "variant"), CASES)
def test_estimates_and_errors(
    head: str, name: str, variant: str, written: Callable[..., list[str]], tmp_path: Path
) -> None:
    of = varied(data(name), variant)
    oracle = estimate(head, of)
    content = run(tmp_path, *written(of), f"head={head}")
    assert content["nll_nats"] == pytest.approx(oracle.nll, abs=1e-9)
    assert content["log_likelihood"] == pytest.approx(-oracle.nll * of.weight.sum(), abs=1e-9 * of.weight.sum())
    for title, params in oracle.params.items():
        rows = content["coefficients"][title]
        assert [row["name"] for row in rows] == ["(intercept)", *of.names]
        error = np.array([row["std_error"] for row in rows])
        np.testing.assert_array_less(np.abs([row["estimate"] for row in rows] - params), 1e-6 * error)
        np.testing.assert_allclose(error, oracle.bse[title], rtol=1e-6)


def test_exposure_is_an_offset_by_its_logarithm(written: Callable[..., list[str]], tmp_path: Path) -> None:
    plain = data("cpunish")
    years = 1.0 + np.arange(len(plain.y)) % 4
    oracle = estimate("poisson", Sample(plain.x, plain.names, plain.y, plain.weight, np.log(years)))
    overrides = [item for item in written(plain, years=years) if not item.startswith("data.offset")]
    overrides[-1] = overrides[-1].replace(",'years'", "")
    content = run(tmp_path, *overrides, "data.exposure=years", "head=poisson")
    found = [row["estimate"] for row in content["coefficients"]["rate"]]
    np.testing.assert_allclose(found, oracle.params["rate"], rtol=1e-7)


def test_part_of_the_features(written: Callable[..., list[str]], tmp_path: Path) -> None:
    of = data("stackloss")
    one = Sample(of.x[:, [0, 2]], (of.names[0], of.names[2]), of.y, of.weight, of.offset)
    oracle = estimate("gaussian", one)
    content = run(tmp_path, *written(of), f"baseline.features=[{of.names[2]},{of.names[0]}]")
    rows = content["coefficients"]["loc"]
    assert [row["name"] for row in rows] == ["(intercept)", *one.names]
    np.testing.assert_allclose([row["estimate"] for row in rows], oracle.params["loc"], rtol=1e-9)
    np.testing.assert_allclose([row["std_error"] for row in rows], oracle.bse["loc"], rtol=1e-9)
    assert content["dropped"] == []
    assert content["lr_df"] == 2


def test_no_feature_at_all_is_the_null_model(written: Callable[..., list[str]], tmp_path: Path) -> None:
    content = run(tmp_path, *written(data("spector")), "head=bernoulli", "baseline.features=[]")
    assert content["log_likelihood"] == pytest.approx(content["null_log_likelihood"], rel=1e-13)
    assert content["num_parameters"] == 1
    assert "lr_chi2" not in content


def test_a_category_takes_all_its_levels(written: Callable[..., list[str]], tmp_path: Path) -> None:
    of = data("stackloss")
    shift = np.array(["late [a]", "early", "night"])[np.arange(len(of.y)) % 3]
    content = run(tmp_path, *written(of, shift=shift), "baseline.features=[shift]")
    names = [row["name"] for row in content["coefficients"]["loc"]]
    assert names == ["(intercept)", "shift=late [a]", "shift=night"]
    means = [of.y[shift == level].mean() for level in ("early", "late [a]", "night")]
    found = [row["estimate"] for row in content["coefficients"]["loc"]]
    np.testing.assert_allclose(found, [means[0], means[1] - means[0], means[2] - means[0]], rtol=1e-9)


def test_only_what_was_asked_for_is_named_as_dropped(written: Callable[..., list[str]], tmp_path: Path) -> None:
    of = data("stackloss")
    overrides = written(of, double=2 * of.x[:, 0], twice=2 * of.x[:, 1])
    with pytest.warns(UserWarning, match="left out of the linear MLE: double$"):
        content = run(tmp_path, *overrides, f"baseline.features=[{of.names[0]},double]")
    assert content["dropped"] == ["double"]


def test_an_unknown_feature_is_refused_before_anything_is_written(
    written: Callable[..., list[str]], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"'AIRFLO' \(baseline\.features\): did you mean 'AIRFLOW'\?"):
        run(tmp_path, *written(data("stackloss")), "baseline.features=[AIRFLO]")
    with pytest.raises(UsageError, match=r"baseline\.features='AIRFLOW': expected a list of text"):
        run(tmp_path, *written(data("stackloss")), "baseline.features=AIRFLOW")
    with pytest.raises(UsageError, match=r"baseline\.standard_errors='robust': expected .*sandwich"):
        run(tmp_path, *written(data("stackloss")), "baseline.standard_errors=robust")
    assert not (tmp_path / "run").exists()


def test_a_huge_offset(written: Callable[..., list[str]], tmp_path: Path) -> None:
    """exp(1e6) is no number, but an intercept of about −1e6 makes it one."""
    plain = data("cpunish")
    oracle = estimate("poisson", plain)
    far = Sample(plain.x, plain.names, plain.y, plain.weight, plain.offset + 1e6)
    content = run(tmp_path, *written(far), "head=poisson")
    assert content["nll_nats"] == pytest.approx(oracle.nll, abs=1e-9)
    found = np.array([row["estimate"] for row in content["coefficients"]["rate"]])
    np.testing.assert_allclose(found[1:], oracle.params["rate"][1:], rtol=1e-6)


@pytest.mark.parametrize(("factor", "moved"), [(1e9, 0.0), (1e-9, 0.0), (1.0, 1e6)])
def test_units_of_a_feature(factor: float, moved: float, written: Callable[..., list[str]], tmp_path: Path) -> None:
    of = data("stackloss")
    oracle = estimate("gaussian", of)
    changed = Sample(factor * of.x + moved, of.names, of.y, of.weight, of.offset)
    content = run(tmp_path, *written(changed))
    rows = content["coefficients"]["loc"][1:]
    np.testing.assert_allclose([row["estimate"] * factor for row in rows], oracle.params["loc"][1:], rtol=1e-7)
    np.testing.assert_allclose([row["std_error"] * factor for row in rows], oracle.bse["loc"][1:], rtol=1e-7)


def test_rows_of_weight_zero_are_no_rows(written: Callable[..., list[str]], tmp_path: Path) -> None:
    of = data("spector")
    weight = np.r_[np.zeros(6), np.ones(26)]
    oracle = estimate("bernoulli", Sample(of.x[6:], of.names, of.y[6:], weight[6:], of.offset[6:]))
    content = run(tmp_path, *written(Sample(of.x, of.names, of.y, weight, of.offset)), "head=bernoulli")
    assert content["population"] == 26
    rows = content["coefficients"]["logits"]
    np.testing.assert_allclose([row["estimate"] for row in rows], oracle.params["logits"], rtol=1e-7)
    np.testing.assert_allclose([row["std_error"] for row in rows], oracle.bse["logits"], rtol=1e-7)
