"""The convolutional network for images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlefw.errors import UsageError


class Cnn(nn.Module):
    """Stages of convolution, each at half the resolution; mean and maximum over the pixels; a last layer.

    The last layer starts at zero, so that training starts at the null model. A stage is a 3x3 convolution, normalised
    within each image in groups of channels (Wu & He, 2018), so that no row depends on another one, and SiLU. The
    resolution is halved as long as both sides have two pixels or more.

    Shapes: x (n, channels, height, width) → raw (n, eta_dim).

    Args:
        input_shape: channels, height and width of an image.
        eta_dim: number of outputs per row.
        channels: number of channels of each stage.
        dropout: probability with which training drops an input of the last layer.

    Raises:
        UsageError: rows are no images of two pixels or more, or a setting is out of range.
    """

    replayable = True

    def __init__(
        self, input_shape: Sequence[int], eta_dim: int, channels: Sequence[int] = (16, 32, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        _check(input_shape, channels, dropout)
        (before, *size), stages = input_shape, list[nn.Module]()
        for k, after in enumerate(channels):
            if k and min(size) >= 2:
                stages.append(nn.AvgPool2d(2))
                size = [side // 2 for side in size]
            convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)  # The normalisation has a bias.
            stages += [convolution, nn.GroupNorm(_num_groups(after), after), nn.SiLU()]
            before = after
        self.body, self.dropout = nn.Sequential(*stages), nn.Dropout(dropout)
        self.last = nn.Linear(2 * before, eta_dim)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (n, eta_dim)."""
        z = self.body(x)  # (n, channels, height, width)
        pooled = torch.cat([z.mean((2, 3)), z.amax((2, 3))], 1)
        return self.last(self.dropout(pooled))


def _num_groups(channels: int) -> int:
    """At most 8 groups of equally many channels, two or more: of a single number nothing is left when normalised."""
    return max(k for k in range(1, 9) if channels % k == 0 and (channels >= 2 * k or k == 1))


def _check(input_shape: Sequence[int], channels: Sequence[int], dropout: float) -> None:
    if len(input_shape) != 3 or input_shape[1] * input_shape[2] < 2:
        raise UsageError(
            f"model=cnn: a row has shape {tuple(input_shape)}: expected an image (channels, height, width) of two "
            "pixels or more; model=mlp is for columns of a table, model=transformer for tokens"
        )
    if not channels or any(not isinstance(k, int) or isinstance(k, bool) or k < 1 for k in channels):
        raise UsageError(f"model.channels={list(channels)}: expected whole numbers of at least 1, such as [16,32,64]")
    if not 0 <= dropout < 1:
        raise UsageError(f"model.dropout={dropout}: expected a probability in [0, 1)")
