"""The bundled data sets, against what their descriptions say."""

import numpy as np
import pytest

from mlefw.data.bundled import Bundled
from mlefw.errors import UsageError

SHAPES = {
    "diabetes": (442, 10, "progression", "bmi"),
    "breast_cancer": (569, 30, "benign", "mean radius"),
    "iris": (150, 4, "species", "petal width (cm)"),
    "digits": (1797, 64, "digit", "pixel_7_7"),
    "wine": (178, 13, "cultivar", "alcohol"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shape_and_names(name: str) -> None:
    num_rows, num_features, target, feature = SHAPES[name]
    source = Bundled(name=name)  # type: ignore[arg-type]
    table = source.read()
    assert table.num_rows == num_rows
    assert len(table.columns) == num_features + 1
    assert source.target == target
    assert {target, feature} <= set(table.columns)


def test_diabetes_is_in_original_units() -> None:
    columns = Bundled(name="diabetes").read().columns
    assert (columns["age"].min(), columns["age"].max()) == (19, 79)
    assert columns["progression"].mean() == pytest.approx(152.13, abs=0.01)


def test_targets() -> None:
    assert Bundled(name="breast_cancer").read().columns["benign"].sum() == 357
    species, counts = np.unique(Bundled(name="iris").read().columns["species"].tolist(), return_counts=True)
    assert species.tolist() == ["setosa", "versicolor", "virginica"]
    assert counts.tolist() == [50, 50, 50]
    assert set(Bundled(name="digits").read().columns["digit"].tolist()) == set("0123456789")


def test_any_column_may_be_the_target() -> None:
    source = Bundled(name="diabetes", target="bmi")
    assert source.target == "bmi"
    assert {"bmi", "progression"} <= set(source.read().columns)


def test_refuses_an_unknown_name() -> None:
    with pytest.raises(UsageError, match="boston"):
        Bundled(name="boston")  # type: ignore[arg-type]
