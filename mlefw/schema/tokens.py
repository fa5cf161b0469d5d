"""`TokenSchema`, what the tokens of a text are, learnt from it and stored with the model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from mlefw.configuration.record import typed
from mlefw.errors import UsageError
from mlefw.reading.documents import Document, TokenKind, utf8_lengths
from mlefw.rows.tokens import TokenRows
from mlefw.rows.windows import windows

UnseenToken = Literal["error", "ignore"]

_CODE_POINTS = 0x110000
_MOST_SHOWN = 5
_MOST_IDS = 2**31 - 1


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
        found = windows(torch.from_numpy(documents), length, stride)
        hidden = None if self.hidden is None else torch.from_numpy(self.hidden)
        return TokenRows(torch.from_numpy(self.tokens), found, length, hidden)


@dataclass(frozen=True)
class TokenSchema:
    """The alphabet of a text and the length of its windows.

    Attributes:
        tokens: whether tokens are characters, bytes, or ids.
        length: number of positions of a window.
        alphabet: the code point or byte of each token, ascending; empty for ids.
        vocabulary: number of ids; None for characters and bytes.
        bytes_per_token: mean number of bytes of text that an id stands for, if known.
    """

    tokens: TokenKind
    length: int
    alphabet: tuple[int, ...] = ()
    vocabulary: int | None = None
    bytes_per_token: float | None = None

    @classmethod
    def learn(
        cls,
        documents: Sequence[Document],
        tokens: TokenKind,
        length: int,
        vocabulary: int | None = None,
        bytes_per_token: float | None = None,
    ) -> "TokenSchema":
        """The schema of documents: of all splits, as the levels of a column are, so that no split has unknown tokens.

        Raises:
            UsageError: one distinct token only; ids without `vocabulary`, or beyond it.
        """
        if length < 1:
            raise UsageError(f"data.length={length}: expected a whole number of 1 or more")
        if tokens == "ids":
            if vocabulary is None or not 2 <= vocabulary <= _MOST_IDS:
                raise UsageError(
                    f"data.vocabulary={'null' if vocabulary is None else vocabulary} with data.tokens=ids"
                    "\n  expected: the number of ids, 2 or more: ids are 0 … data.vocabulary − 1"
                )
            return cls(tokens, length, (), vocabulary, bytes_per_token)
        present = np.zeros(_CODE_POINTS if tokens == "chars" else 256, dtype=bool)
        for document in documents:
            for _, symbols in document.blocks():
                present[symbols] = True
        alphabet = np.flatnonzero(present)
        if len(alphabet) < 2:
            only = f"only one distinct token, {_shown(int(alphabet[0]), tokens)}" if len(alphabet) else "no token"
            raise UsageError(
                f"{documents[0].name} holds {only}\n  expected: two or more, else there is nothing to predict"
            )
        return cls(tokens, length, tuple(alphabet.tolist()))

    @property
    def num_tokens(self) -> int:
        """Number of different tokens, K."""
        return len(self.alphabet) if self.vocabulary is None else self.vocabulary

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint8, uint16 and int32 that holds every token."""
        return np.dtype("uint8" if self.num_tokens <= 2**8 else "uint16" if self.num_tokens <= 2**16 else "int32")

    @property
    def labels(self) -> tuple[str, ...]:
        """The tokens as text for people: characters as they are, bytes as `0x0A`, ids as numbers."""
        if self.tokens == "ids":
            return tuple(map(str, range(self.num_tokens)))
        return tuple(chr(one) if self.tokens == "chars" else f"0x{one:02X}" for one in self.alphabet)

    @property
    def token_bytes(self) -> np.ndarray | None:
        """Number of bytes of text of each token, (num_tokens,) float64; None for ids of unknown length."""
        if self.tokens == "chars":
            return utf8_lengths(np.array(self.alphabet)).astype(float)
        each = 1.0 if self.tokens == "bytes" else self.bytes_per_token
        return None if each is None else np.full(self.num_tokens, each)

    def code(self, documents: Sequence[Document], unseen: UnseenToken = "error") -> TokenStream:
        """The documents as one stream; memory beyond it is bounded.

        Args:
            documents: at least one.
            unseen: whether a token that the alphabet lacks is an error, or hidden: never scored, and read as token 0.

        Raises:
            UsageError: a token that the alphabet lacks, or an id beyond the vocabulary; the message names places.
        """
        sizes = [
            sum(len(symbols) for _, symbols in one.blocks()) if one.whole is None else len(one.whole)
            for one in documents
        ]
        ends = np.cumsum(sizes, dtype=np.int64)
        spans = np.stack([ends - sizes, ends], 1)
        if self.tokens == "ids":
            return TokenStream(self._ids(documents, int(ends[-1])), spans)
        table = np.full(_CODE_POINTS if self.tokens == "chars" else 256, -1, dtype=np.int32)
        table[list(self.alphabet)] = np.arange(self.num_tokens)
        stream, hidden, position = np.empty(int(ends[-1]), self.dtype), None, 0
        for document in documents:
            for offset, symbols in document.blocks():
                coded = table[symbols]
                lacking = coded < 0
                if lacking.any():
                    if unseen == "error":
                        raise self._unknown(document, offset, symbols, lacking)
                    hidden = np.zeros(len(stream), dtype=bool) if hidden is None else hidden
                    hidden[position : position + len(coded)] = lacking
                    coded = np.where(lacking, 0, coded)
                stream[position : position + len(coded)] = coded
                position += len(coded)
        return TokenStream(stream, spans, hidden)

    def decode(self, tokens: np.ndarray) -> str | bytes | np.ndarray:
        """The text of tokens (n,): str for characters, bytes for bytes, and the ids themselves."""
        if self.tokens == "ids":
            return tokens
        symbols = np.array(self.alphabet, dtype=np.uint32)[tokens]
        if self.tokens == "bytes":
            return symbols.astype(np.uint8).tobytes()
        return symbols.astype("<u4").tobytes().decode("utf-32-le")

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain values."""
        return {**asdict(self), "alphabet": list(self.alphabet)}

    @classmethod
    def from_dict(cls, plain: Any) -> "TokenSchema":
        """The schema from the content of `to_dict`.

        Raises:
            UsageError: the content is not that of a schema.
        """
        return typed(cls, plain, "schema")

    def _ids(self, documents: Sequence[Document], size: int) -> np.ndarray:
        for document in documents:
            for offset, ids in document.blocks():
                outside = (ids < 0) | (ids >= self.num_tokens)
                if outside.any():
                    place = np.flatnonzero(outside)[:_MOST_SHOWN]
                    shown = ", ".join(f"{int(ids[k])} at position {offset + int(k)}" for k in place)
                    raise UsageError(
                        f"{document.name} holds ids outside 0 … {self.num_tokens - 1}: {shown}"
                        "\n  expected: data.vocabulary=N above every id, and data.dtype as the file was written"
                    )
        whole = documents[0].whole
        # Where they lie, if torch has an operation for their type; int64 would cost eight times the memory of uint8.
        if len(documents) == 1 and whole is not None and whole.dtype in (np.uint8, np.uint16, np.int32):
            return whole if whole.flags.writeable else whole.copy()
        stream, position = np.empty(size, self.dtype), 0
        for document in documents:
            for _, ids in document.blocks():
                stream[position : position + len(ids)] = ids
                position += len(ids)
        return stream

    def _unknown(self, document: Document, offset: int, symbols: np.ndarray, lacking: np.ndarray) -> UsageError:
        place = np.flatnonzero(lacking)[:_MOST_SHOWN]
        sizes = utf8_lengths(symbols) if self.tokens == "chars" else np.ones(len(symbols), dtype=np.int64)
        at = offset + np.cumsum(sizes) - sizes
        shown = ", ".join(f"{_shown(int(symbols[k]), self.tokens)} at byte offset {int(at[k])}" for k in place)
        return UsageError(
            f"{document.name} holds {self.tokens} that the training text does not: {shown}"
            "\n  data.unseen=ignore leaves them out of every figure, and says how many they are"
        )


def _shown(symbol: int, kind: TokenKind) -> str:
    return repr(chr(symbol)) if kind == "chars" else f"0x{symbol:02X}"
