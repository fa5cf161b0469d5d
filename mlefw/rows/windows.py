"""Windows of a token stream, which score every token but the first of each document exactly once."""

from typing import NamedTuple

import torch
from torch import Tensor


class Windows(NamedTuple):
    """Windows of one length into a stream of tokens, int64 tensors (n,).

    Window i reads the tokens from `start[i]`; of its positions those in [skip[i], stop[i]) are scored: the token that
    follows each of them in the stream.

    Attributes:
        start: position in the stream of the first token.
        skip: first position that is scored.
        stop: position after the last one that is scored.
        origin: position in the stream at which the document begins, which tells documents apart.
    """

    start: Tensor
    skip: Tensor
    stop: Tensor
    origin: Tensor

    @property
    def num_scored(self) -> int:
        """Number of scored tokens."""
        return int((self.stop - self.skip).sum())

    def take(self, index: Tensor | slice) -> "Windows":
        """The windows at `index`, in its order."""
        return Windows(*(column[index] for column in self))

    def to(self, device: torch.device) -> "Windows":
        """The windows on a device."""
        return Windows(*(column.to(device) for column in self))


def windows(documents: Tensor, length: int, stride: int | None = None, phase: int = 0) -> Windows:
    """The windows of documents, in the order of the stream.

    A window follows `stride` tokens after another and scores the tokens that are new in it. The last window of a
    document ends with it, so that it begins earlier and its first positions are masked. A document of fewer than
    `length` + 1 tokens has one window, which runs on behind it, masked. Documents of one token have none.

    Args:
        documents: positions (start, stop) of the documents in the stream, (num_documents, 2) int64.
        length: number of positions of a window.
        stride: number of tokens that a window scores, from 1 to `length`; `length` by default. Smaller ones give each
            token but the first `length` of a document at least `length` − `stride` + 1 tokens of context.
        phase: number of tokens, from 0 to `length` − 1, that the first window scores in documents longer than a window;
            0 stands for `length`.
    """
    step = length if stride is None else stride
    scored = documents[:, 1] - documents[:, 0] - 1
    documents, scored = documents[scored > 0], scored[scored > 0]
    first = torch.where(scored > length, phase or length, scored)
    more = -torch.div(first - scored, step, rounding_mode="floor")
    owner = torch.repeat_interleave(torch.arange(len(scored)), 1 + more)
    begin = torch.cumsum(1 + more, 0) - (1 + more)
    rank = torch.arange(len(owner)) - begin[owner]
    # What a window scores, as positions in its document.
    low = torch.where(rank > 0, first[owner] + (rank - 1) * step, 0)
    high = torch.minimum(first[owner] + rank * step, scored[owner])
    start = (high - length).clamp(min=0)
    origin = documents[owner, 0]
    return Windows(origin + start, low - start, high - start, origin)


def shifted_windows(documents: Tensor, length: int, phase: int) -> Windows:
    """As `windows`, filled up with windows that score nothing, so that their number is the same for every phase."""
    found = windows(documents, length, None, phase)
    scored = (documents[:, 1] - documents[:, 0] - 1).clamp(min=0)
    # The most windows are those of phase 1.
    most = torch.where(scored > length, 1 - torch.div(1 - scored, length, rounding_mode="floor"), scored.clamp(max=1))
    empty = int(most.sum()) - len(found.start)
    return Windows(*(torch.cat([column, column.new_zeros(empty)]) for column in found))
