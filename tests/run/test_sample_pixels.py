"""Images drawn from a model of pixels have the probabilities that the model gives them."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from mlefw.configuration.settings import Settings
from mlefw.errors import UsageError
from mlefw.head.categorical import CategoricalHead
from mlefw.model.transformer import Transformer
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.tensor_inputs import Tokens
from mlefw.run.checkpoint import Trained
from mlefw.run.sample_pixels import MOST_PIXELS, grid, sample_levels, sample_pixels, shown_sample
from mlefw.schema.pixels import PixelSchema
from mlefw.schema.target import Target
from mlefw.schema.tensors import TensorSchema

NUM = 20_000


def schema_of(height: int, width: int, levels: int) -> PixelSchema:
    target = Target("pixel", "labels", tuple(map(str, range(levels))))
    return PixelSchema(
        (target,), "x", (1, height, width), "uint8", (height * width,), levels=levels, low=0.0, high=255.0
    )


def objective_of(schema: PixelSchema) -> Objective:
    """A transformer whose weights are large enough that pixels depend strongly on each other."""
    torch.manual_seed(3)
    model = Transformer(schema.levels + 1, schema.positions[0], schema.positions, schema.levels, 8, 1, 2)
    with torch.no_grad():
        for one in model.parameters():
            one.normal_(std=0.7)
    return Objective(Tokens(model, schema.row_shape), CategoricalHead(schema.levels), NoPrior(), 1.0)


@torch.no_grad()
def law(objective: Objective, schema: PixelSchema, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """All images (m, T) and their probabilities, from the network's logits of whole images in one pass."""
    size, k = schema.positions[0], schema.levels
    images = np.array(list(product(range(k), repeat=size)))
    x = torch.from_numpy(np.concatenate([np.full((len(images), 1), k), images[:, :-1]], 1))
    logits = objective.eval().model(x).double() / temperature
    each = logits.log_softmax(-1).gather(-1, torch.from_numpy(images).unsqueeze(-1)).squeeze(-1)
    return images, each.sum(1).exp().numpy()


@pytest.mark.parametrize(("levels", "temperature"), [(2, 1.0), (3, 1.0), (2, 0.5), (2, 3.0)])
def test_images_are_drawn_with_the_probabilities_of_the_model(levels: int, temperature: float) -> None:
    schema = schema_of(2, 2, levels)
    objective = objective_of(schema)
    images, expected = law(objective, schema, temperature)
    assert expected.sum() == pytest.approx(1, abs=1e-6)
    assert expected.max() > 3 * expected.min()
    drawn = sample_levels(objective, schema, NUM, torch.Generator().manual_seed(1), temperature)
    code = drawn.reshape(NUM, -1).astype(int) @ levels ** np.arange(3, -1, -1)
    found = np.bincount(code, minlength=len(images))
    # Images that are seldom expected are counted together.
    rare = NUM * expected < 10
    wanted = np.append(NUM * expected[~rare], NUM * expected[rare].sum())
    seen = np.append(found[~rare], found[rare].sum())
    kept = wanted > 0
    wanted *= NUM / wanted.sum()
    assert chisquare(seen[kept], wanted[kept]).pvalue > 1e-3
    if temperature != 1:
        other = law(objective, schema, 1.0)[1]
        assert chisquare(found, NUM * other / other.sum()).pvalue < 1e-9


def trained(schema: TensorSchema, objective: Objective) -> Trained:
    nothing: Any = None
    settings: Settings = nothing
    return Trained(objective, schema, settings, Path("run.ckpt"))


def test_pictures_are_bytes_and_follow_the_generator() -> None:
    schema = schema_of(3, 5, 4)
    model = trained(schema, objective_of(schema).train())
    first = sample_pixels(model, 6, torch.Generator().manual_seed(1))
    assert first.shape == (6, 1, 3, 5) and first.dtype == np.uint8
    assert set(np.unique(first)) <= {0, 85, 170, 255}
    assert (sample_pixels(model, 6, torch.Generator().manual_seed(1)) == first).all()
    assert (sample_pixels(model, 6, torch.Generator().manual_seed(2)) != first).any()
    assert model.objective.training
    figure = grid(first, "title", "subtitle")
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 6
    assert np.allclose(shown[4], (first[4, 0] - first.min()) / (first.max() - first.min()))


def test_a_report_shows_a_grid_of_small_images_alone() -> None:
    small, large = schema_of(2, 3, 2), schema_of(1, MOST_PIXELS + 1, 2)
    figure = shown_sample(objective_of(small), small, torch.Generator().manual_seed(1))
    assert figure is not None and len(figure.axes) == 16
    assert shown_sample(objective_of(small), large, torch.Generator()) is None


def test_what_cannot_be_drawn_is_refused() -> None:
    schema = schema_of(2, 2, 2)
    model = trained(schema, objective_of(schema))
    for num, temperature, said in ((0, 1.0, "images 0"), (1, 0.0, "temperature=0"), (1, float("nan"), "temperature")):
        with pytest.raises(UsageError, match=said):
            sample_pixels(model, num, None, temperature)
    other = TensorSchema(schema.targets, "x", (1, 2, 2), "uint8")
    with pytest.raises(UsageError, match=r"does not forecast pixels.*data\.levels=2"):
        sample_pixels(trained(other, model.objective), 1)
