"""Images drawn from a model of pixels: one pixel after the other, each given those before it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Categorical

from mlefw.baseline.work import Watch
from mlefw.errors import UsageError
from mlefw.objective.objective import Objective
from mlefw.plot.image_grid import Tile, image_grid
from mlefw.report.progress_line import progress_line
from mlefw.run.checkpoint import Trained
from mlefw.schema.kinds import RowSchema
from mlefw.schema.pixels import PixelSchema

NUM_SHOWN = 16
"""Images of the grid in a report."""

MOST_PIXELS = 1024
"""Most pixels of an image of which a report draws a grid: each takes a pass of the network over those before it."""

_EVERY = 16
"""Pixels between two messages of progress."""


def sample_pixels(
    trained: Trained, num: int, generator: torch.Generator | None = None, temperature: float = 1.0
) -> np.ndarray:
    """Images drawn from a trained model, (num, 1, height, width) uint8: level k of K is the byte 255 k / (K − 1).

    Args:
        trained: a model that was trained with `data.levels`.
        num: number of images.
        generator: of random numbers, on the CPU; None for torch's own.
        temperature: divides the logits of each pixel. With 1 images have the distribution of the model.

    Raises:
        UsageError: the model is not one of pixels, `num` is below 1, or the temperature not positive.
    """
    schema = trained.schema
    if not isinstance(schema, PixelSchema):
        raise UsageError(f"{trained.path}: the model does not forecast pixels: expected one trained with data.levels=2")
    levels = sample_levels(trained.objective, schema, num, generator, temperature)
    return schema.grey(levels)[:, np.newaxis]


@torch.no_grad()
def sample_levels(
    objective: Objective,
    schema: PixelSchema,
    num: int,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    watch: Watch | None = None,
) -> np.ndarray:
    """The levels of images drawn by ancestral sampling in evaluation mode, (num, height, width), in the smallest type.

    Each pixel takes a pass of the network over those before it, for all images together: of T pixels, the work of
    num · T / 2 rows. Arguments and errors are as for `sample_pixels`; `watch` is told the progress.
    """
    if num < 1:
        raise UsageError(f"number of images {num}: expected 1 or more")
    if not 0 < temperature < float("inf"):
        raise UsageError(f"temperature={temperature}: expected a positive number")
    device, length = objective.head.center.device, schema.positions[0]
    tokens = torch.full((num, length + 1), schema.levels, dtype=torch.long)
    training = objective.training
    objective.eval()
    try:
        for position in range(length):
            if watch is not None and position % _EVERY == 0:
                watch(f"pixel {position:,} of {length:,}", True)
            x = tokens[:, : position + 1].to(device)
            eta = objective.eta(x, torch.zeros(x.shape, dtype=torch.float64, device=device))
            tokens[:, position + 1] = _draw(objective.head(eta[:, -1]), generator, temperature)
    finally:
        objective.train(training)
    levels = tokens[:, 1:].numpy().reshape(num, *schema.height_width)
    return levels.astype(np.uint8 if schema.levels <= 256 else np.int16)


def _draw(forecast: object, generator: torch.Generator | None, temperature: float) -> Tensor:
    """A level of each forecast, (num,) int64."""
    assert isinstance(forecast, Categorical)
    probabilities = (forecast.logits.double().cpu() / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)


def grid(images: np.ndarray, title: str, subtitle: str, lines: Sequence[Sequence[str]] | None = None) -> Figure:
    """A picture of images (num, 1, height, width), with words below each where there are some."""
    words = lines or [()] * len(images)
    return image_grid([Tile(image[0], some) for image, some in zip(images, words, strict=True)], title, subtitle)


def shown_sample(objective: Objective, schema: RowSchema, generator: torch.Generator) -> Figure | None:
    """The grid of images of a report; None where rows are no pixels, or so many that drawing them takes long."""
    if not isinstance(schema, PixelSchema) or schema.positions[0] > MOST_PIXELS:
        return None
    with progress_line("images drawn from the model") as watch:
        levels = sample_levels(objective, schema, NUM_SHOWN, generator, watch=watch)
    title = f"{NUM_SHOWN} images drawn from the model"
    words = f"Pixel by pixel from the top left, each given those before it, at one of {schema.levels} levels"
    return grid(schema.grey(levels)[:, np.newaxis], title, words)
