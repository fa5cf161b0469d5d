"""Settings of jobs are put in as Hydra does it, and references are replaced as OmegaConf does, or left to it."""

from typing import Any

import hydra
import pytest
from omegaconf import OmegaConf

from mlefw.configuration import compose
from mlefw.configuration.compose import replace_references
from mlefw.configuration.yaml_folder import config_root

PLAIN: list[dict[str, Any]] = [
    {"a": {"b": 1e-3, "c": [1, "x", None, True]}, "d": "${a.b}", "e": ["${a.b}", {"f": "${g}/h"}], "g": "there"},
    {"a": None, "b": "${a}/x", "c": "${a}", "d": "no $ign of it".replace("$", "s")},
]
UNCLEAR: list[dict[str, Any]] = [
    {"a": "${oc.env:HOME}"},
    {"a": "${b}", "b": "${c}", "c": 1},
    {"a": {"b": 1}, "c": "${a}"},
    {"a": {"b": "${.c}", "c": 1}},
    {"a": "\\${b}", "b": 1},
    {"a": 1.5, "b": "${a}x"},
    {"a": "${b}"},
]


@pytest.mark.parametrize("config", PLAIN)
def test_plain_references_are_replaced_as_omegaconf_does(config: dict[str, Any]) -> None:
    assert replace_references(config) == OmegaConf.to_container(OmegaConf.create(config), resolve=True)


@pytest.mark.parametrize("config", UNCLEAR)
def test_anything_else_is_left_to_omegaconf(config: dict[str, Any]) -> None:
    assert replace_references(config) is None


def test_settings_of_jobs_are_put_in_as_hydra_does() -> None:
    overrides = ["seed=3", "++optimizer.lr=0.5", "++model.hidden=[8,8]", "++trainer.max_time=null", "report=false"]
    with hydra.initialize_config_dir(str(config_root()), version_base="1.3"):
        whole = hydra.compose("train", overrides=overrides)
    config, choices = compose.compose_plain(config_root(), "train", overrides)
    assert config == OmegaConf.to_container(whole, resolve=False)
    assert choices["head"] == "gaussian"
    config["model"]["hidden"].append(1)
    assert compose.compose_plain(config_root(), "train", overrides)[0]["model"]["hidden"] == [8, 8]
