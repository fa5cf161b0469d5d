"""Every YAML of the data group builds its source, and spells out the defaults that the class has."""

from dataclasses import MISSING, fields
from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from mlefw.data.base import Source

FOLDER = Path(__file__).parents[2] / "conf" / "data"
NAMES = sorted(file.stem for file in FOLDER.glob("*.yaml"))


def test_all_are_there() -> None:
    expected = {"breast_cancer", "csv", "diabetes", "digits", "iris", "parquet", "synthetic", "wine"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_builds(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(config, dict)
    assert isinstance(instantiate({key: value for key, value in config.items() if key != "defaults"}), Source)
    assert (FOLDER / f"{name}.yaml").read_text().startswith("# ")


@pytest.mark.parametrize("name", NAMES)
def test_defaults_agree(name: str) -> None:
    config = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(config, dict)
    defaults = {f.name: f.default for f in fields(get_class(config["_target_"])) if f.init}
    common = {f.name for f in fields(Source)}
    given = {str(key): value for key, value in config.items() if key not in ("_target_", "defaults")}
    assert set(given) <= set(defaults)
    assert set(given) >= set(defaults) - common
    own = {key: value for key, value in given.items() if key not in common and defaults[key] is not MISSING}
    assert own == {key: defaults[key] for key in own}
