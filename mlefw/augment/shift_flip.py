"""Random shifts and reflections of images."""

from torch import Tensor

from mlefw.augment.flip import Flip
from mlefw.augment.shift import Shift


class ShiftFlip(Shift):
    """Moves each image by up to `pixels` in both directions, and swaps left and right with probability 1/2.

    Shapes: x (n, channels, height, width) → the same shape.

    Args:
        pixels: the largest shift, in pixels.

    Raises:
        UsageError: the setting is below 1, or, in `check`, as large as a side of the image.
    """

    def __init__(self, pixels: int = 2) -> None:
        super().__init__(pixels)
        self.flip = Flip()

    def forward(self, x: Tensor) -> Tensor:
        """The shifted images, about half of them reflected."""
        return self.flip(super().forward(x))
