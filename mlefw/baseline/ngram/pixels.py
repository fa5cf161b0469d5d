"""What tables of the level of a pixel are by: its position, or the pixels before it that are nearest to it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlefw.errors import UsageError
from mlefw.rows.rows import Rows

DEFAULT_ORDERS = (1, 4, 10)
"""Numbers of pixels of the tables beside a run that asks for none."""


@dataclass(frozen=True)
class PixelContext:
    """What is known of a pixel of an image as one number, the context by which levels are counted.

    With `order` 0 it is the position of the pixel. Else it is the levels of the `order` pixels that are nearest to it,
    by Euclidean distance, among those before it in raster order; of pixels equally far the one in the lower line comes
    first, and of one line the left one. Outside of the image the level is 0.

    Attributes:
        height: of an image.
        width: of an image.
        num_levels: number of levels, K.
        order: number of pixels.
    """

    height: int
    width: int
    num_levels: int
    order: int

    @property
    def num_inputs(self) -> int:
        """Number of different contexts, whether they occur or not."""
        return self.num_levels**self.order if self.order else self.height * self.width

    def check(self) -> None:
        """Check that a context and a level have a key that is an int64.

        Raises:
            UsageError: they have not.
        """
        if self.order < 0 or self.num_inputs * self.num_levels >= 2**63:
            raise UsageError(
                f"baseline.order={self.order} with {self.num_levels} levels: expected a whole number of 1 or more with "
                f"{self.num_levels}^(order + 1) below 2^63"
            )

    def ids(self, rows: Rows) -> Tensor:
        """The context of each pixel, (n, height · width) int64, of rows whose targets are levels in raster order."""
        if not self.order:
            return torch.arange(self.height * self.width).expand(rows.num_rows, -1)
        reach = max(max(-dy, abs(dx)) for dy, dx in nearest(self.order))
        image = np.zeros((rows.num_rows, self.height + reach, self.width + 2 * reach), np.int64)
        image[:, reach:, reach : reach + self.width] = rows.y.numpy().reshape(-1, self.height, self.width)
        found = np.zeros((rows.num_rows, self.height, self.width), np.int64)
        for dy, dx in nearest(self.order):
            top, left = reach + dy, reach + dx
            found *= self.num_levels
            found += image[:, top : top + self.height, left : left + self.width]
        return torch.from_numpy(found.reshape(rows.num_rows, -1))


def nearest(order: int) -> list[tuple[int, int]]:
    """The `order` nearest earlier pixels as (lines down, columns to the right) of a pixel, the nearest first."""
    # Half of a disc of radius r holds more than r² earlier pixels.
    reach = 1 + int(order**0.5)
    lines = [(dy, dx) for dy in range(-reach, 1) for dx in range(-reach, reach + 1) if dy < 0 or dx < 0]
    return sorted(lines, key=lambda one: (one[0] ** 2 + one[1] ** 2, -one[0], one[1]))[:order]


def orders(num_levels: int, order: int | None) -> list[int]:
    """The numbers of pixels of the tables beside a run: 1 and 4 where they are fewer than the largest, and that one.

    Args:
        num_levels: number of levels, K.
        order: the largest; None for the largest of 1, 4 and 10 whose contexts have a key that is an int64.
    """
    fits = [m for m in DEFAULT_ORDERS if num_levels ** (m + 1) < 2**63]
    largest = fits[-1] if order is None else order
    return [*(m for m in DEFAULT_ORDERS[:-1] if m < largest), largest]
