"""Coded documents, one behind the other."""

from typing import NamedTuple

import numpy as np
import torch

from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import Windows, windows


class TokenStream(NamedTuple):
    """Coded documents, one behind the other.

    Attributes:
        tokens: (num_tokens,) in the smallest of uint8, uint16 and int32, or as the ids lie in their file.
        documents: positions (start, stop) of the documents, (num_documents, 2) int64.
        hidden: whether each token is unknown to the schema, and coded as token 0, (num_tokens,); None if none is.
    """

    tokens: np.ndarray
    documents: np.ndarray
    hidden: np.ndarray | None = None

    @property
    def num_unknown(self) -> int:
        """Number of tokens that the schema does not know."""
        return 0 if self.hidden is None else int(self.hidden.sum())

    def rows(self, documents: np.ndarray, length: int, stride: int | None = None) -> TokenRows:
        """The rows of some documents, such as those of a split, (num_documents, 2)."""
        return self.rows_of(windows(torch.from_numpy(documents), length, stride), length)

    def rows_of(self, found: Windows, length: int) -> TokenRows:
        """The rows of some windows of the stream."""
        hidden = None if self.hidden is None else torch.from_numpy(self.hidden)
        return TokenRows(torch.from_numpy(self.tokens), found, length, hidden)
