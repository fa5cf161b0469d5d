"""The images that a model forecasts worst, side by side."""

import numpy as np
from matplotlib.figure import Figure
from torch.distributions import Bernoulli, Categorical, Distribution

from mlefw.plot.image_grid import Tile, image_grid
from mlefw.report.hardest import Hardest, View
from mlefw.rows.shape import RowShape
from mlefw.schema.kinds import RowSchema
from mlefw.system.number_format import percent

_LETTERS = 12
"""Most letters of a class below an image."""


def is_image(schema: RowSchema) -> bool:
    """Whether rows are images that can be drawn: grey, in colour, or with transparency; or their pixels as tokens."""
    shape = schema.row_shape
    return shape.picture is not None or _has_channels(shape)


def _has_channels(shape: RowShape) -> bool:
    return shape.num_tokens is None and len(shape.input_shape) == 3 and shape.input_shape[0] in (1, 3, 4)


def show(hard: Hardest, schema: RowSchema) -> Figure:
    """Each image with its row, its NLL, what was observed and what was forecast; misclassified ones are framed."""
    images = _images(hard, schema.row_shape)
    words = _words(hard, schema)
    tiles = [
        Tile(image, [f"row {row}: {nll:.3g} nats", *lines], wrong)
        for image, row, nll, (lines, wrong) in zip(images, hard.index.tolist(), hard.mean.tolist(), words, strict=True)
    ]
    what = "training" if hard.split == "train" else hard.split
    count = f"The {len(tiles)} hardest of {hard.num_rows:,} {what} images"
    title = count if hard.share is None else f"{count} carry {percent(hard.share)} of the NLL"
    if len(tiles) == hard.num_rows:
        title = f"All {len(tiles)} {what} images, the hardest first"
    wrong = sum(tile.is_wrong for tile in tiles)
    if schema.labels is not None and not hard.rows.positions:
        title += f"; {wrong} taken for another class"
    subtitle = f"Largest NLL (per {schema.row_shape.observation}) first; rows counted from 0"
    if schema.labels is not None and not hard.rows.positions:
        subtitle += "; in brackets the forecast probability; framed where another class is likelier"
    return image_grid(tiles, title, subtitle)


def _images(hard: Hardest, shape: RowShape) -> np.ndarray:
    """The images, (k, height, width), in colour (k, height, width, 3); of pixels as tokens their levels."""
    if shape.picture is not None:
        return np.asarray(hard.rows.y.cpu().numpy().reshape(-1, *shape.picture))
    images = np.moveaxis(hard.rows.x.cpu().numpy(), 1, -1)
    return images[..., 0] if images.shape[-1] == 1 else images[..., :3]


def _words(hard: Hardest, schema: RowSchema) -> list[tuple[list[str], bool]]:
    """What was observed and forecast of each image, and whether the likeliest class is not the observed one."""
    count = len(hard.index)
    if schema.labels is not None:
        return _of_positions(hard) if hard.rows.positions else _of_classes(hard, schema.labels)
    if hard.rows.positions:
        return [([], False)] * count
    figures = _moments(hard.distribution)
    if figures is None:
        return [([], False)] * count
    observed = hard.rows.y.double().cpu().numpy()
    return [
        ([f"observed {y:.4g}", f"forecast {mean:.4g} ± {sd:.2g}"], False)
        for y, mean, sd in zip(observed, *figures, strict=True)
    ]


def _of_positions(hard: Hardest) -> list[tuple[list[str], bool]]:
    """The share of the observations of each image whose likeliest class is the observed one."""
    probs = _probabilities(hard.distribution)
    if probs is None:
        return [([], False)] * len(hard.index)
    weight, observed = hard.rows.weight.cpu().numpy(), hard.rows.y.long().cpu().numpy()
    right = (weight * (probs.argmax(-1) == observed)).reshape(len(weight), -1).sum(1)
    share = right / weight.reshape(len(weight), -1).sum(1)
    return [([f"{percent(float(one))} right"], False) for one in share]


def _of_classes(hard: Hardest, labels: tuple[str, ...]) -> list[tuple[list[str], bool]]:
    probs, observed = _probabilities(hard.distribution), hard.rows.y.long().cpu().numpy()
    if probs is None:
        return [([f"label {_short(labels[k])}"], False) for k in observed]
    likeliest = probs.argmax(-1)
    return [
        (
            [f"label {_short(labels[k])} ({_chance(p[k])})", f"forecast {_short(labels[j])} ({_chance(p[j])})"],
            bool(k != j),
        )
        for k, j, p in zip(observed, likeliest, probs, strict=True)
    ]


def _probabilities(distribution: Distribution) -> np.ndarray | None:
    """Probabilities of classes, (k, *positions, K); None where forecasts have none."""
    if isinstance(distribution, Bernoulli):
        p = distribution.probs.double().cpu().numpy()
        return np.stack([1 - p, p], -1)
    return distribution.probs.double().cpu().numpy() if isinstance(distribution, Categorical) else None


def _moments(distribution: Distribution) -> tuple[np.ndarray, np.ndarray] | None:
    """Means and standard deviations of forecasts of one number, (k,) each; None where they are not defined."""
    try:
        found = distribution.mean, distribution.stddev
    except NotImplementedError:
        return None
    if found[0].ndim != 1:
        return None
    return found[0].double().cpu().numpy(), found[1].double().cpu().numpy()


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 1]}…"


def _chance(p: float) -> str:
    """A probability in per cent, also a small one."""
    return percent(float(p)) if p >= 1e-3 else f"{100 * p:.1g} %" if p > 0 else "0 %"


VIEW = View("hardest", "Hardest images", 24, is_image, show)
