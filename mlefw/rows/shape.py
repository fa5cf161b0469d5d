"""`RowShape`: what a model may ask of the shape of a row."""

from dataclasses import dataclass, replace
from math import prod


@dataclass(frozen=True)
class RowShape:
    """The shape of one row, as its source describes it.

    Attributes:
        input_shape: shape of x of a row: (num_features,) of a table, (channels, height, width) of an image, (T,) of
            tokens.
        positions: shape of the weight of a row: () where y is one observation, (T,) where there is one at each token.
        num_tokens: number of distinct tokens where x holds tokens, whole numbers below it; else None.
        is_sequential: whether y at a position is given what x holds up to it (the next token): a model must not look
            at later positions.
        picture: height and width of the image whose pixels, row by row, are the targets of a row (`data.levels`); else
            None.
    """

    input_shape: tuple[int, ...]
    positions: tuple[int, ...] = ()
    num_tokens: int | None = None
    is_sequential: bool = False
    picture: tuple[int, int] | None = None

    @property
    def num_features(self) -> int:
        """How many numbers a row holds; of tokens the columns of the one-hot code of one token."""
        return prod(self.input_shape) if self.num_tokens is None else self.num_tokens

    @property
    def length(self) -> int | None:
        """The number of tokens of a row; None where x holds no tokens."""
        return None if self.num_tokens is None else self.input_shape[0]

    @property
    def is_table(self) -> bool:
        """Whether a row is a row of a table: one observation, and x its columns."""
        return self.num_tokens is None and len(self.input_shape) == 1 and not self.positions

    @property
    def observation(self) -> str:
        """What one observation is, in a word: `row`, or a `token`, `pixel` or other `position` of a row."""
        if not self.positions:
            return "row"
        if self.picture is not None:
            return "pixel"
        if self.num_tokens is not None and self.is_sequential:
            return "token"
        is_image = len(self.input_shape) == 3 and self.input_shape[1:] == self.positions
        return "pixel" if is_image else "position"

    @property
    def channel_dim(self) -> int | None:
        """The dimension of input_shape that counts channels, each standardised by itself; None for one in all.

        It is the first one of an image (channels, height, width), and the last one of a series (T, channels) with a
        target at each of the T steps.
        """
        if len(self.input_shape) >= 3:
            return 0
        return -1 if len(self.input_shape) == 2 and self.positions == self.input_shape[:1] else None

    def with_inputs(self, num_inputs: int) -> "RowShape":
        """The shape of a row of a table after an input map."""
        return replace(self, input_shape=(num_inputs,))

    def __str__(self) -> str:
        """In words, for messages: `images or series of shape (1, 28, 28)`."""
        if self.picture is not None and self.num_tokens is not None:
            return f"the {self.positions[0]} pixels of an image as tokens of {self.num_tokens} kinds"
        if self.num_tokens is not None:
            return f"{self.input_shape[0]} tokens of {self.num_tokens} kinds"
        return f"{self.input_shape[0]} features" if self.is_table else f"numbers of shape {self.input_shape}"
