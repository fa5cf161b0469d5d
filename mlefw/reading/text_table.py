"""`TextTable`, windows of the documents of a text, before and after the text is coded."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from mlefw.reading.documents import Document
from mlefw.reading.table import Table
from mlefw.rows.token_stream import TokenStream
from mlefw.rows.windows import Windows, windows


@dataclass(frozen=True, eq=False)
class Corpus:
    """Documents one behind the other, which are measured and coded once.

    Attributes:
        documents: at least one.
    """

    documents: tuple[Document, ...]
    _coded: dict[Hashable, TokenStream] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> str:
        """Where the text comes from, for messages."""
        more = f" and {len(self.documents) - 1} more" if len(self.documents) > 1 else ""
        return self.documents[0].name + more

    @cached_property
    def spans(self) -> np.ndarray:
        """Positions (start, stop) of the documents in tokens, (num_documents, 2) int64."""
        ends = np.cumsum([document.size for document in self.documents], dtype=np.int64)
        return np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)

    def coded(self, key: Hashable, code: Callable[[Sequence[Document], np.ndarray], TokenStream]) -> TokenStream:
        """The stream that `code` makes of documents and spans; it is called once for each `key`."""
        if key not in self._coded:
            self._coded[key] = code(self.documents, self.spans)
        return self._coded[key]


@dataclass(frozen=True)
class TextTable(Table):
    """Windows of a text as the rows of a table without columns.

    Attributes:
        corpus: the documents.
        windows: of the tokens of all documents, one behind the other.
        length: number of positions of a window.
        pieces: positions (start, stop) of what training draws other windows from in each epoch, (m, 2); None to take
            the windows as they are.
    """

    corpus: Corpus = field(default_factory=lambda: Corpus(()))
    windows: Windows = field(default_factory=lambda: windows(torch.zeros(0, 2, dtype=torch.long), 1))
    length: int = 1
    pieces: np.ndarray | None = None

    @classmethod
    def of(
        cls, corpus: Corpus, pieces: np.ndarray, length: int, stride: int | None, moves: bool = False
    ) -> "TextTable":
        """The windows of some pieces of documents, (m, 2); with `moves` training draws others in each epoch."""
        found = windows(torch.from_numpy(pieces), length, stride)
        return cls({}, corpus.origin, corpus=corpus, windows=found, length=length, pieces=pieces if moves else None)

    @property
    def num_rows(self) -> int:
        """Number of windows."""
        return len(self.windows.start)

    def take(self, index: np.ndarray) -> "TextTable":
        """The windows at `index`, in that order, which do not move."""
        some = self.windows.take(torch.from_numpy(np.asarray(index, dtype=np.int64)))
        return replace(self, windows=some, numbers=self.row_numbers(index), pieces=None)

    def document_of(self) -> np.ndarray:
        """The number of the document of each window, (num_rows,)."""
        return np.searchsorted(self.corpus.spans[:, 0], self.windows.origin.numpy(), "right") - 1
