"""Images side by side with a few words below each."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mlefw.plot.style import VERMILION, drawn, label, sheet

_COLUMNS = 6


@dataclass(frozen=True)
class Tile:
    """An image with what is said of it.

    Attributes:
        image: (H, W) grey or (H, W, 3) red, green and blue, any range.
        lines: what stands below it, from the top.
        is_wrong: whether it stands out from the others.
    """

    image: np.ndarray
    lines: Sequence[str]
    is_wrong: bool = False


@drawn
def image_grid(tiles: Sequence[Tile], title: str, subtitle: str) -> Figure:
    """Images in rows of six, with one grey scale for all.

    Args:
        tiles: the images in their order.
        title: the conclusion.
        subtitle: what is shown.
    """
    low, high = _range([tile.image for tile in tiles])
    if tiles[0].image.ndim == 2:
        subtitle += f"\nGrey values: black is {low:.6g}, white {high:.6g}"
    num_rows = -(-len(tiles) // _COLUMNS)
    lines = max(len(tile.lines) for tile in tiles)
    each = 1.25 + 0.17 * lines
    height = 1.3 + each * num_rows
    figure = sheet(title, subtitle, height)
    figure.subplots_adjust(left=0.02, right=0.98, bottom=(0.17 * lines + 0.08) / height, top=1 - 1.0 / height)
    grid = figure.add_gridspec(num_rows, _COLUMNS, hspace=(0.17 * lines + 0.12) / 1.25, wspace=0.08)
    for place, tile in enumerate(tiles):
        axes = figure.add_subplot(grid[place // _COLUMNS, place % _COLUMNS])
        shown = (tile.image - low) / (high - low) if high > low else np.zeros(tile.image.shape)
        axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(True)
        axes.spines[:].set(color=VERMILION if tile.is_wrong else "0.6", linewidth=2.2 if tile.is_wrong else 0.8)
        words = "\n".join(label(line, 24) for line in tile.lines)
        axes.set_xlabel(words, fontsize=8, labelpad=3, linespacing=1.25)
    return figure


def _range(images: Sequence[np.ndarray]) -> tuple[float, float]:
    """The values that are black and white: of bytes in colour 0 and 255, else the least and greatest."""
    if images[0].ndim == 3 and images[0].dtype == np.uint8:
        return 0.0, 255.0
    return float(min(image.min() for image in images)), float(max(image.max() for image in images))
