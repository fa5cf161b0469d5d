"""Random reflections of images."""

import torch
from torch import Tensor

from mlefw.augment.base import Augment


class Flip(Augment):
    """Swaps left and right in each image with probability 1/2.

    Shapes: x (n, channels, height, width) → the same shape.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The images, about half of them reflected."""
        is_flipped = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5
        return torch.where(is_flipped, x.flip(3), x)
