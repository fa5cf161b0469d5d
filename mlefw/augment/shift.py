"""Random shifts of images."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlefw.augment.base import Augment
from mlefw.errors import UsageError


class Shift(Augment):
    """Moves each image by up to `pixels` up or down, and left or right, all shifts being equally likely.

    The pixels at the border are repeated where a shift leaves a gap.

    Shapes: x (n, channels, height, width) → the same shape.

    Args:
        pixels: the largest shift, in pixels.

    Raises:
        UsageError: the setting is below 1, or, in `check`, as large as a side of the image.
    """

    def __init__(self, pixels: int = 2) -> None:
        super().__init__()
        if pixels < 1:
            raise UsageError(f"augment.pixels={pixels}: expected a whole number of at least 1, or augment=none")
        self.pixels = pixels

    def check(self, input_shape: Sequence[int], positions: Sequence[int] = ()) -> None:
        """Refuse rows that are no images, or are as small as a shift.

        Raises:
            UsageError: they are.
        """
        super().check(input_shape, positions)
        if self.pixels >= min(input_shape[1:]):
            height, width = input_shape[1:]
            raise UsageError(
                f"augment.pixels={self.pixels}: images have {height} x {width} pixels: expected fewer than either"
            )

    def forward(self, x: Tensor) -> Tensor:
        """The shifted images."""
        return self._along(self._along(x, 2), 3)

    def _along(self, x: Tensor, dim: int) -> Tensor:
        """The images, each shifted along a dimension by a number of its own."""
        shift = torch.randint(-self.pixels, self.pixels + 1, (len(x), 1), device=x.device)
        last = x.shape[dim] - 1
        source = (torch.arange(last + 1, device=x.device) + shift).clamp(0, last)  # (n, side)
        source = source[:, None, :, None] if dim == 2 else source[:, None, None, :]
        return x.gather(dim, source.expand(x.shape))
