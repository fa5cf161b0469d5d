"""The interface of sources of text, whose rows are windows of tokens."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from mlefw.data.base import Block, Source
from mlefw.errors import UsageError
from mlefw.reading.documents import Document, TokenKind
from mlefw.reading.table import Table
from mlefw.reading.text_table import Corpus, TextTable
from mlefw.reading.token_split import TokenRule, check_long_enough, check_scored, split_tokens

_REFUSED = (
    *("target", "event", "event_code", "trials", "features", "categorical", "offset", "exposure", "weight", "labels"),
    *("id", "group", "time", "cluster"),
)
"""Settings of columns of a table."""

_BLOCK_TOKENS = 2**20
"""Tokens of a block of windows."""


@dataclass(kw_only=True)
class TextSource(Source):
    """Reads documents, and cuts them into windows of tokens; the target at each position is the token that follows.

    The text is never changed. Windows cross neither the ends of documents nor those of splits. A concrete source writes
    `load`.

    Attributes:
        tokens: what a token is: a character (Unicode code point), a byte, or an id.
        length: number of tokens of a window, which are the context of its last position.
        stride: number of tokens that a window scores in evaluation: a smaller one gives each token more context. By
            default `length`.
        shift: whether the windows of each epoch begin at another place of the text.
        vocabulary: number of ids, which are 0 … vocabulary − 1 (tokens=ids).
        bytes_per_token: mean number of bytes of text that an id stands for, if known (tokens=ids).
        split: `tail`: the last tokens are test rows, those before them validation rows; `documents`: whole documents at
            random.
        test_fraction: share of all tokens, or documents, that is held out for the final evaluation.
        validation_fraction: share of all tokens, or documents, that is held out to evaluate each epoch.
        unseen: tokens of new text that the training text does not have: `error`, or `ignore` to leave them out of
            every figure.
    """

    form: ClassVar = "tokens"

    tokens: TokenKind = "chars"
    length: int = 64
    stride: int | None = None
    shift: bool = True
    vocabulary: int | None = None
    bytes_per_token: float | None = None
    split: TokenRule = "tail"  # type: ignore[assignment]
    test_fraction: float = 0.1
    validation_fraction: float = 0.1
    unseen: Literal["error", "ignore"] = "error"

    @abstractmethod
    def load(self) -> Sequence[Document]:
        """The documents, but those of `read_validation` and `read_test`.

        Raises:
            UsageError: they cannot be read.
        """

    def read(self) -> TextTable:
        """The windows of all documents."""
        return self.whole(self.load())

    def whole(self, documents: Sequence[Document], is_new: bool = False) -> TextTable:
        """The windows of all of some documents, as evaluation takes them.

        Args:
            documents: the documents.
            is_new: whether a trained model is applied to them, so that they may be shorter than a window.

        Raises:
            UsageError: settings that a text does not have, or no token that another one precedes.
        """
        self.check_split()
        corpus = Corpus(tuple(documents))
        if is_new:
            check_scored(corpus.spans, corpus.origin)
        else:
            check_long_enough(corpus.spans, self.length, corpus.origin, "a longer text, or a smaller data.length")
        return TextTable.of(corpus, corpus.spans, self.length, self.stride)

    def read_blocks(self) -> Iterator[Block]:
        """The windows of a new text, about a million tokens at a time."""
        table, size = self.whole(self.load(), is_new=True), max(1, _BLOCK_TOKENS // self.length)
        for start in range(0, table.num_rows, size):
            row = np.arange(start, min(start + size, table.num_rows))
            yield Block(table.take(row), row, (start + len(row)) / table.num_rows)

    def parts(self, table: Table | None = None) -> dict[str, tuple[Table, np.ndarray]]:
        """The windows of each split, and their positions among them, which are all."""
        self.check_split()
        text = self.read() if table is None else table
        assert isinstance(text, TextTable)
        given = {"validation": self.read_validation(), "test": self.read_test()}
        shares = (
            0.0 if given["validation"] is not None else self.validation_fraction,
            0.0 if given["test"] is not None else self.test_fraction,
        )
        pieces = split_tokens(text.corpus.spans, self.split, *shares, self.seed, self.length)
        found: dict[str, Table] = {
            name: TextTable.of(
                text.corpus, part, self.length, None if name == "train" else self.stride, name == "train" and self.shift
            )
            for name, part in pieces.items()
        }
        found |= {name: other for name, other in given.items() if other is not None}
        return {
            name: (found[name], np.arange(found[name].num_rows))
            for name in ("train", "validation", "test")
            if name in found
        }

    def check_split(self) -> None:
        """Check the settings of text and of the split.

        Raises:
            UsageError: naming the setting.
        """
        self._check_shares()
        for name in _REFUSED:
            if getattr(self, name):
                raise UsageError(
                    f"data.{name}={getattr(self, name)} is for columns of a table"
                    "\n  expected: no such setting with a text, whose rows are windows of tokens"
                )
        for name in ("length", "stride"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"data.{name}={value}: expected a whole number of 1 or more")
        if self.stride is not None and self.stride > self.length:
            raise UsageError(
                f"data.stride={self.stride}: expected at most data.length={self.length}, so that every token is scored"
            )
        if self.tokens != "ids" and (self.vocabulary or self.bytes_per_token):
            raise UsageError(f"data.vocabulary and data.bytes_per_token are for data.tokens=ids, not {self.tokens}")
        if self.bytes_per_token is not None and not self.bytes_per_token > 0:
            raise UsageError(f"data.bytes_per_token={self.bytes_per_token}: expected a positive number")

    def _check_shares(self) -> None:
        if self.split not in get_args(TokenRule):
            raise UsageError(f"data.split={self.split} is for rows of a table\n  expected: tail or documents")
        if self.missing != "error":
            raise UsageError(f"data.missing={self.missing} is for columns of a table: expected error with a text")
        for name in ("test_fraction", "validation_fraction"):
            share = getattr(self, name)
            if not 0 <= share < 1:
                raise UsageError(f"data.{name}={share} is not a share of the text\n  expected: from 0 to below 1")
        if self.test_fraction + self.validation_fraction >= 1:
            raise UsageError("data.test_fraction and data.validation_fraction leave nothing to train on")
        if self.seed < 0:
            raise UsageError(f"data.seed={self.seed}: expected a whole number of at least 0")
