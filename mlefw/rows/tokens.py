"""Rows that are windows of a stream of tokens: x the tokens but the last, y the tokens but the first."""

from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from mlefw.rows.rows import Rows
from mlefw.rows.windows import Windows, shifted_windows


class TokenRows(Rows):
    """Rows for the likelihood of the next token, kept as the stream and four integers a row.

    What is iterated over, and what `num_bytes` counts, is what is stored: the stream and the start, skip and stop of
    the windows. `x`, `y`, `weight` and `offset` are gathered when they are read, which for a long stream takes far more
    memory than `take` of some rows, or `blocks`.

    Shapes: x and y (n, length) in the type of the stream, weight and offset (n, length) float64. Weight is 1 at the
    scored positions and 0 elsewhere. Behind the end of the stream its last token is repeated, with weight 0.

    Args:
        stream: tokens, (num_tokens,), uint8, uint16, int32 or int64.
        windows: the windows.
        length: number of positions of a row.
        hidden: whether each token of the stream is one that is never scored, (num_tokens,) bool; None if none is.
        pieces: positions (start, stop) of the documents in the stream, (m, 2) int64, if each epoch of training draws
            from windows of them that begin at another place; None if it draws from `windows`.
    """

    windows: Windows
    length: int
    hidden: Tensor | None
    pieces: Tensor | None

    def __new__(  # noqa: D102
        cls,
        stream: Tensor,
        windows: Windows,
        length: int,
        hidden: Tensor | None = None,
        pieces: Tensor | None = None,
    ) -> "TokenRows":
        rows = super().__new__(cls, stream, windows.start, windows.skip, windows.stop)
        rows.windows, rows.length, rows.hidden, rows.pieces = windows, length, hidden, pieces
        return rows

    def moving(self, pieces: Tensor) -> "TokenRows":
        """The rows, of which training draws others in each epoch: windows of `pieces`, (m, 2)."""
        return TokenRows(self.stream, self.windows, self.length, self.hidden, pieces)

    def joined(self, others: Sequence["TokenRows"]) -> "TokenRows":
        """The rows with those of other windows of the stream behind them."""
        windows = Windows(
            *(torch.cat(column) for column in zip(self.windows, *(o.windows for o in others), strict=True))
        )
        return TokenRows(self.stream, windows, self.length, self.hidden)

    @property
    def is_moving(self) -> bool:
        """Whether training draws from windows that begin at another place in each epoch."""
        return self.pieces is not None

    @property
    def num_per_epoch(self) -> int:
        """Number of windows of an epoch of training, which is the same for every place at which they begin."""
        return self.num_rows if self.pieces is None else len(shifted_windows(self.pieces, self.length, 0).start)

    def of_epoch(self, generator: torch.Generator) -> "TokenRows":
        """The windows of an epoch of training, (num_per_epoch,): the first of each document scores a random number."""
        if self.pieces is None:
            return self
        phase = int(torch.randint(self.length, (), generator=generator))
        found = shifted_windows(self.pieces, self.length, phase).to(self.device)
        return TokenRows(self.stream, found, self.length, self.hidden)

    @property
    def stream(self) -> Tensor:
        """All tokens, (num_tokens,)."""
        return self[0]

    @property
    def num_rows(self) -> int:
        """Number of windows."""
        return len(self.windows.start)

    @property
    def positions(self) -> torch.Size:
        """Shape of the observations of a row, (length,)."""
        return torch.Size((self.length,))

    @property
    def input_shape(self) -> torch.Size:
        """Shape of the inputs of a row, (length,)."""
        return torch.Size((self.length,))

    @property
    def row_weight(self) -> Tensor:
        """Number of scored tokens of each window, (n,)."""
        if self.hidden is None:
            return (self.windows.stop - self.windows.skip).double()
        return torch.cat([part.weight.sum(1) for part in self.blocks(max(1, 2**18 // self.length))])

    @property
    def device(self) -> torch.device:
        """Where the stream is."""
        return self.stream.device

    @property
    def population(self) -> float:
        """Number of scored tokens."""
        if self.hidden is None:
            return float(self.windows.num_scored)
        return sum(float(part.weight.sum()) for part in self.blocks(max(1, 2**18 // self.length)))

    @property
    def x(self) -> Tensor:
        """All tokens that are read, (n, length)."""
        return self.gathered().x

    @property
    def y(self) -> Tensor:
        """All tokens that follow, (n, length)."""
        return self.gathered().y

    @property
    def weight(self) -> Tensor:
        """1 at scored positions, 0 elsewhere, (n, length)."""
        return self.gathered().weight

    @property
    def offset(self) -> Tensor:
        """Zeros, (n, length), a view of one number."""
        return self._constant(0.0, (self.num_rows,))

    def to(self, device: Any, **options: Any) -> "TokenRows":
        """The stream and the windows on a device, copied only where they are on another one."""
        if torch.device(device) == self.device:
            return self
        hidden = None if self.hidden is None else self.hidden.to(device, **options)
        windows = self.windows.to(torch.device(device))
        return TokenRows(self.stream.to(device, **options), windows, self.length, hidden, self.pieces)

    def take(self, index: Tensor | slice) -> Rows:
        """The rows at `index`: windows of the same stream for a slice, else gathered rows.

        An int64 index may have any shape, which replaces n in the shapes.
        """
        if isinstance(index, slice):
            return TokenRows(self.stream, self.windows.take(index), self.length, self.hidden)
        index = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        some = self.windows.take(index.reshape(-1))
        tokens = self._tokens(self.stream, some.start)
        weight = self._weight(some)
        columns = (tokens[:, :-1], tokens[:, 1:], weight, self._constant(0.0, (len(some.start),)))
        # Not `view`: x and y are parts of one gathered tensor, and a constant has one number only.
        return Rows(*(column.unflatten(0, index.shape) for column in columns))

    def blocks(self, size: int) -> Iterator[Rows]:
        """The gathered rows in consecutive blocks of at most `size` rows."""
        for start in range(0, self.num_rows, size):
            yield self.take(torch.arange(start, min(start + size, self.num_rows), device=self.device))

    def new_empty(self, shape: Any, dtype: torch.dtype = torch.float64) -> Tensor:
        """An uninitialised tensor, (num_rows, *shape), on the device of the stream."""
        return torch.empty((self.num_rows, *shape), dtype=dtype, device=self.device)

    def __reduce__(self) -> Any:  # noqa: D105
        # A named tuple would be made again from its four columns.
        return TokenRows, (self.stream, self.windows, self.length, self.hidden, self.pieces)

    def _replace(self, **columns: Tensor) -> NoReturn:
        raise TypeError("token rows have no columns to replace: take rows first")

    def gathered(self) -> Rows:
        """All rows with their own tensors, as for a recorded step, which reads them anew in each replay."""
        return self.take(torch.arange(self.num_rows, device=self.device))

    def _tokens(self, stream: Tensor, start: Tensor) -> Tensor:
        """The tokens that windows read and the one after them, (n, length + 1)."""
        position = start.unsqueeze(1) + torch.arange(self.length + 1, device=self.device)
        position = position.clamp_(max=len(stream) - 1).reshape(-1)
        # `index_select` knows no uint16; it copies the same bits as int16.
        bits = stream.view(torch.int16) if stream.dtype == torch.uint16 else stream
        return bits.index_select(0, position).view(stream.dtype).view(len(start), self.length + 1)

    def _weight(self, some: Windows) -> Tensor:
        # Elsewhere than on a CPU the answer would have to be waited for.
        is_cpu = self.device.type == "cpu"
        if is_cpu and self.hidden is None and bool((some.stop - some.skip == self.length).all()):
            return self._constant(1.0, (len(some.start),))
        position = torch.arange(self.length, device=self.device)
        scored = (position >= some.skip.unsqueeze(1)) & (position < some.stop.unsqueeze(1))
        if self.hidden is not None:
            scored &= ~self._tokens(self.hidden, some.start)[:, 1:]
        return scored.double()

    def _constant(self, value: float, shape: tuple[int, ...]) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device).expand(*shape, self.length)
