"""Thresholds of an ordinal head, with standard errors by the delta method."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv
from statsmodels.miscmodels.ordinal_model import OrderedModel

from mlefw.cli import run

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("num_classes", [2, 3, 5])
@pytest.mark.parametrize("standardize", ["true", "false"])
def test_thresholds_are_those_of_statsmodels(
    num_classes: int, standardize: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    x = 3 + 2 * random.normal(size=(400, 2))
    cuts = np.linspace(-1.5, 1.5, num_classes - 1) + 1 if num_classes > 2 else [1.0]
    y = np.digitize(x @ [0.5, -0.2] + random.logistic(size=400), cuts)
    csv.write_csv(pa.table({"a": x[:, 0], "b": x[:, 1], "y": y}), tmp_path / "d.csv")
    data = ("data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", f"data.standardize={standardize}")
    assert run(["baseline", "head=ordinal", *data, f"run_dir={tmp_path / 'b'}"]) == 0
    out = capfd.readouterr().out
    table = json.loads((tmp_path / "b" / "baseline.json").read_text(encoding="utf-8"))["coefficients"]["thresholds"]
    assert [row["name"] for row in table] == [f"{k} | {k + 1}" for k in range(num_classes - 1)]
    assert all(f"{k} | {k + 1}" in out for k in range(num_classes - 1))
    assert "gap_" not in out

    model = OrderedModel(y, x, distr="logit")
    fit = model.fit(method="newton", disp=False, tol=1e-12)
    fit = model.fit(start_params=fit.params, method="bfgs", disp=False, gtol=1e-10)

    def thresholds(params: np.ndarray) -> np.ndarray:
        return np.asarray(model.transform_threshold_params(params)[1:-1])

    step = 1e-6 * np.eye(len(fit.params))
    slopes = np.stack([(thresholds(fit.params + h) - thresholds(fit.params - h)) / 2e-6 for h in step], 1)
    errors = np.sqrt(np.diag(slopes @ fit.cov_params() @ slopes.T))
    np.testing.assert_allclose([row["estimate"] for row in table], thresholds(fit.params), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose([row["std_error"] for row in table], errors, rtol=1e-4)
