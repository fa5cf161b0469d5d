"""What every data source must do: the public checks over all of them."""

import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import get_args, get_type_hints

import numpy as np
import pandas
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

import mlefw.data
from mlefw.data.arrays import Arrays, as_arrays
from mlefw.data.base import Source
from mlefw.data.bundled import Bundled
from mlefw.data.csv import Csv
from mlefw.data.digits_images import DigitsImages
from mlefw.data.frame import Frame, offered
from mlefw.data.images import Images
from mlefw.data.npz import Npz
from mlefw.data.parquet import Parquet
from mlefw.data.shakespeare import Shakespeare
from mlefw.data.strings import Strings
from mlefw.data.synthetic import KINDS, Synthetic
from mlefw.data.text import Text
from mlefw.data.torch import Torch
from mlefw.system import trust
from mlefw.testing.source import check_source


def file(folder: Path, suffix: str) -> str:
    """A table with numbers, text and a missing cell."""
    random = np.random.default_rng(0)
    content = pandas.DataFrame({"x": random.normal(size=57), "c": random.choice(["a", "b"], 57), "y": np.arange(57.0)})
    content.loc[3, "x"] = np.nan
    path = folder / f"d.{suffix}"
    content.to_csv(path, index=False) if suffix == "csv" else content.to_parquet(path, row_group_size=10)
    return str(path)


def arrays(folder: Path) -> str:
    """Images, a label for each, and weights."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 255, (57, 1, 4, 4)).astype(np.uint8), random.integers(0, 3, 57)
    np.savez(folder / "d.npz", x=x, y=y, w=random.uniform(size=57))
    return str(folder / "d.npz")


def text(folder: Path) -> str:
    """A folder with two documents."""
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("one and the other, über alles " * 9)
    (folder / "texts" / "b.txt").write_text("the rest")
    return str(folder / "texts")


def photos(folder: Path) -> str:
    """Eleven images of two labels."""
    for k, pixels in enumerate(np.random.default_rng(0).integers(0, 255, (11, 5, 4, 3)).astype(np.uint8)):
        (folder / "photos" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "photos" / "ab"[k % 2] / f"{k}.png")
    return str(folder / "photos")


@pytest.fixture(autouse=True)
def _admitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with a dataset, as `--plugin` admits one."""
    random = np.random.default_rng(0)
    parts = (random.normal(size=(57, 3, 4)), random.integers(0, 2, 57), random.uniform(size=57))
    module = ModuleType("stored_set")
    exec("def make(): return made", vars(module))
    vars(module)["made"] = TensorDataset(*map(torch.from_numpy, parts))
    monkeypatch.setitem(sys.modules, "stored_set", module)
    monkeypatch.setattr(trust, "_in_process", {"stored_set": None})


SOURCES: dict[str, Callable[[Path], Source]] = {
    **{name: lambda _, name=name: Bundled(name=name) for name in get_args(get_type_hints(Bundled)["name"])},
    **{kind: lambda _, kind=kind: Synthetic(kind=kind) for kind in KINDS},
    "csv": lambda folder: Csv(path=file(folder, "csv"), target="y", missing="impute"),
    "digits_images": lambda _: DigitsImages(),
    "images": lambda folder: Images(path=photos(folder)),
    "npz": lambda folder: Npz(path=arrays(folder), weight="w"),
    "shakespeare": lambda _: Shakespeare(),
    "text": lambda folder: Text(path=text(folder), length=5, stride=2),
    "torch": lambda _: Torch(dataset="stored_set:make"),
    "parquet": lambda folder: Parquet(path=file(folder, "parquet"), target="y", missing="drop"),
}


@pytest.mark.filterwarnings("ignore:.*rows with missing values are dropped")
@pytest.mark.parametrize("name", SOURCES)
def test_the_public_checks(name: str, tmp_path: Path) -> None:
    check_source(SOURCES[name](tmp_path))


def test_the_public_checks_on_a_frame(tmp_path: Path) -> None:
    with offered(rows=pyarrow.csv.read_csv(file(tmp_path, "csv")).drop_null()):
        check_source(Frame(target="y"))


def test_the_public_checks_on_text_in_memory() -> None:
    with offered(rows=["one and the other " * 9, "über alles"]):
        check_source(Strings(length=5))


def test_the_public_checks_on_arrays_in_memory() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(57, 4, 2)), random.integers(0, 3, (57, 4))
    with offered(rows=as_arrays(x, y, "x", "y")):
        check_source(Arrays())
    with offered(rows=as_arrays({"x": random.integers(0, 9, (57, 4, 2))}, None, "x", "y")):
        check_source(Arrays(levels=3))
    with offered(rows=TensorDataset(torch.from_numpy(x), torch.from_numpy(y))):
        check_source(Arrays())


def test_every_source_is_tried(tmp_path: Path) -> None:
    tried = {type(make(tmp_path)).__module__ for make in SOURCES.values()} | {
        f"mlefw.data.{name}" for name in ("frame", "arrays", "strings")
    }
    modules = {f"mlefw.data.{info.name}" for info in pkgutil.iter_modules(mlefw.data.__path__)}
    assert tried == modules - {"mlefw.data.base", "mlefw.data.tensor_source", "mlefw.data.text_source"}
