"""What a model gets of the rows: by the names in its constructor, or an error that says what is missing."""

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from mlefw.augment.shift import Shift
from mlefw.configuration.admission import admitted
from mlefw.configuration.read import read_settings, settings_of
from mlefw.configuration.settings import Node
from mlefw.errors import UsageError
from mlefw.rows.shape import RowShape
from mlefw.rows.standardize import Standardized
from mlefw.rows.tensor_inputs import StandardizedChannels, Tokens, unit_statistics
from mlefw.run.network import build_augment, build_model, check_batch_norm, surrounded, takes_flat_rows

TABLE, IMAGES = RowShape((13,)), RowShape((3, 4, 5))
TEXT, SERIES = RowShape((6,), (6,), 65, is_sequential=True), RowShape((6, 2), (6,))


class Everything(nn.Module):
    """Names all facts, and a setting."""

    def __init__(self, eta_dim, length, num_tokens, num_features, positions, input_shape, setting=1) -> None:
        super().__init__()
        self.facts = (input_shape, positions, num_features, num_tokens, length, eta_dim, setting)


class Optional(nn.Module):
    """Has settings by the names of facts that only tokens have."""

    def __init__(self, num_features: int, length: float = 5.0, num_tokens: int = 2) -> None:
        super().__init__()
        self.facts = (num_features, length, num_tokens)


class Shaped(nn.Module):
    """Names the shape of the input."""

    def __init__(self, input_shape, num_features, eta_dim) -> None:
        super().__init__()
        self.input_shape = input_shape


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_nets")
    for kind in (Everything, Optional, Shaped):
        monkeypatch.setattr(kind, "__module__", "my_nets")
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, "my_nets", module)
    monkeypatch.setenv("MLEFW_PLUGINS", "my_nets")
    admitted({}, ["my_nets"])


def node(name: str, **settings) -> Node:
    return {"_target_": name if name.startswith("mlefw") else f"my_nets.{name}", **settings}


def test_a_model_gets_what_it_names() -> None:
    assert build_model(node("Everything"), TEXT, 7).facts == ((6,), (6,), 65, 65, 6, 7, 1)


def test_facts_that_rows_do_not_have_leave_settings_alone() -> None:
    assert build_model(node("Optional"), TABLE, 7).facts == (13, 5.0, 2)
    assert build_model(node("Optional", length=3.0), TABLE, 7).facts == (13, 3.0, 2)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        (
            "Everything",
            TABLE,
            r"my_nets\.Everything asks for length, the number of tokens of a row, and rows hold 13",
        ),
        (
            "mlefw.model.transformer.Transformer",
            IMAGES,
            r"asks for num_tokens, the number of distinct tokens, and rows "
            r"hold numbers of shape \(3, 4, 5\): expected tokens \(data=text\), or model=cnn for images",
        ),
        (
            "mlefw.model.mlp.Mlp",
            TEXT,
            r"rows hold 6 tokens of 65 kinds, and it takes numbers: expected a model whose "
            "constructor names num_tokens, such as model=transformer",
        ),
        ("Shaped", TEXT, "it takes numbers"),
        ("mlefw.model.cnn.Cnn", TABLE, r"a row has shape \(13,\): expected an image"),
    ],
)
def test_a_model_that_does_not_fit_the_rows_is_refused(name: str, shape: RowShape, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        build_model(node(name), shape, 7)


@pytest.mark.parametrize(
    ("name", "shape", "is_flat"),
    [
        ("mlefw.model.mlp.Mlp", IMAGES, True),
        ("mlefw.model.linear.Linear", IMAGES, True),
        ("mlefw.model.linear.Linear", TEXT, False),
        ("mlefw.model.cnn.Cnn", IMAGES, False),
        ("Shaped", IMAGES, False),
    ],
)
def test_images_are_flattened_for_models_that_take_vectors(name: str, shape: RowShape, is_flat: bool) -> None:
    assert takes_flat_rows(node(name), shape) is is_flat


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [
        ("mlefw.model.mlp.Mlp", TABLE, Standardized),
        ("mlefw.model.mlp.Mlp", IMAGES, StandardizedChannels),
        ("mlefw.model.cnn.Cnn", IMAGES, StandardizedChannels),
        ("mlefw.model.transformer.Transformer", TEXT, Tokens),
        ("mlefw.model.linear.Linear", TEXT, Tokens),
    ],
)
def test_the_layer_before_the_model_goes_by_the_rows(name: str, shape: RowShape, kind: type) -> None:
    whole = surrounded(build_model(node(name), shape, 7), node(name), shape, *unit_statistics(shape))
    assert type(whole) is kind
    assert whole(whole.typical()).shape == (1, *shape.positions, 7)


def test_images_of_an_mlp_are_shifted_before_they_are_flattened() -> None:
    mlp = node("mlefw.model.mlp.Mlp", hidden=[])
    model = build_model(mlp, IMAGES, 60)
    with torch.no_grad():
        model.last.weight.copy_(torch.eye(60))
    whole = surrounded(model, mlp, IMAGES, *unit_statistics(IMAGES), augment=Shift(1)).train()
    x = torch.arange(60.0).reshape(1, 3, 4, 5)
    found = {tuple(whole(x).flatten().tolist()) for _ in range(100)}
    torch.manual_seed(0)
    expected = {tuple(Shift(1)(x).flatten().tolist()) for _ in range(500)}
    assert len(found) > 1 and found <= expected


def test_an_augmentation_of_rows_that_are_no_images_is_refused() -> None:
    shift = {"_target_": "mlefw.augment.shift.Shift", "pixels": 1}
    assert build_augment(shift, IMAGES).pixels == 1
    assert build_augment({}, TABLE) is None
    for shape in (TABLE, TEXT, SERIES):
        with pytest.raises(UsageError, match="expected an image"):
            build_augment(shift, shape)


@pytest.mark.parametrize("given", ["batch.max_rows=5", "trainer.devices=2"])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm])
def test_batch_normalisation_is_refused_where_a_batch_is_computed_in_parts(layer: type[nn.Module], given: str) -> None:
    more = ("trainer.strategy=ddp",) if "devices" in given else ("batch=full",)
    settings = settings_of(read_settings("train", [*more, given], [], []))
    model = nn.Sequential(nn.Linear(2, 4), layer(4) if layer is not nn.GroupNorm else nn.GroupNorm(2, 4))
    check_batch_norm(settings_of(read_settings("train", [], [], [])), model)
    if layer is nn.GroupNorm:
        check_batch_norm(settings, model)
        return
    with pytest.raises(UsageError, match=f"(?s){given.split('=')[0]}.*{layer.__name__}.*GroupNorm"):
        check_batch_norm(settings, model)
