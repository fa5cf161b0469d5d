"""Hydra and OmegaConf still have the names that they do not promise to keep, which do what mlefw takes them to do."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import UnsupportedInterpolationType

from mlefw.configuration.hydra_internals import Callbacks, only_resolvers, patched_reading

WHERE = "mlefw/configuration/hydra_internals.py has to follow"


def test_other_resolvers_are_unknown_inside_and_back_afterwards() -> None:
    OmegaConf.register_new_resolver("a_stranger", lambda: 7)
    try:
        config = OmegaConf.create({"x": "${a_stranger:}"})
        with only_resolvers(("oc.env",)), pytest.raises(UnsupportedInterpolationType):
            _ = config.x
        assert config.x == 7, f"OmegaConf keeps its resolvers elsewhere: {WHERE}"
    finally:
        OmegaConf.clear_resolver("a_stranger")


def test_texts_and_references_go_through_what_is_put_in_place() -> None:
    seen = []

    def loader(usual):
        def made():
            seen.append("text")
            return usual()

        return made

    def follow(usual):
        def followed(*given, **more):
            seen.append("reference")
            return usual(*given, **more)

        return followed

    with patched_reading(loader, follow):
        config = OmegaConf.create("a: 1\nb: ${a}")
        assert config.b == 1
    assert seen == ["text", "reference"], f"OmegaConf reads or follows in another way: {WHERE}"
    assert OmegaConf.create("a: 1\nb: ${a}").b == 1
    assert len(seen) == 2


def test_a_launcher_is_given_callbacks() -> None:
    empty = Callbacks(OmegaConf.create({"hydra": {"callbacks": {}}}))
    assert empty.callbacks == [], f"Hydra makes its callbacks in another way: {WHERE}"
