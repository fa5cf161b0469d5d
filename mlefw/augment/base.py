"""`Augment`, the interface of a random change of rows in training steps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from mlefw.errors import UsageError


class Augment(nn.Module, ABC):
    """A random change of rows that does not change what is to be predicted of them, drawn anew in each training step.

    Training then descends the expected NLL over the changes. Evaluations and predictions are of rows as they are. An
    augmentation has neither parameters nor buffers, and draws from torch's global generator, which is that of the
    steps: so a resumed run goes on with the same random numbers.

    Shapes: x (n, *input_shape) → the same shape. A row of the output depends on no other row.
    """

    def check(self, input_shape: Sequence[int], positions: Sequence[int] = ()) -> None:
        """Refuse rows that it is not for: by default all but images with one target each.

        Args:
            input_shape: shape of x of a row; of an image (channels, height, width).
            positions: shape of the targets of a row; () for one.

        Raises:
            UsageError: rows are of another shape.
        """
        if len(input_shape) != 3 or positions:
            rows = f"x of shape {tuple(input_shape)}" + (f" and y of shape {tuple(positions)}" if positions else "")
            raise UsageError(
                f"augment={type(self).__name__.lower()}: a row has {rows}: "
                "expected an image (channels, height, width) with one target, or augment=none"
            )

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The changed rows, in a new tensor.

        Args:
            x: rows whose channels are standardised, (n, *input_shape), in the precision and on the device of the model.
        """
