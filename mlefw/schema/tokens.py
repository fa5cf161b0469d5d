"""`TokenSchema`, what the tokens of a text are, learnt from it and stored with the model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from mlefw.configuration.record import typed
from mlefw.data.base import Source
from mlefw.errors import MisfitError, UsageError
from mlefw.reading.documents import Document, TokenKind, utf8_lengths
from mlefw.reading.table import Table
from mlefw.reading.text_table import TextTable
from mlefw.rows.rows import Rows
from mlefw.rows.shape import RowShape
from mlefw.rows.token_stream import TokenStream
from mlefw.schema.target import Target, TargetKind

UnseenToken = Literal["error", "ignore"]

_CODE_POINTS = 0x110000
_MOST_SHOWN = 5
_MOST_IDS = 2**31 - 1


@dataclass(frozen=True)
class TokenSchema:
    """The alphabet of a text and the length of its windows.

    Attributes:
        tokens: whether tokens are characters, bytes, or ids.
        length: number of positions of a window.
        alphabet: the code point or byte of each token, ascending; empty for ids.
        vocabulary: number of ids; None for characters and bytes.
        bytes_per_token: mean number of bytes of text that an id stands for, if known.
        unseen: whether a token that the alphabet lacks is an error, or ignored: never scored, and read as token 0.
        form: says in a checkpoint that this is no schema of columns.
    """

    target: ClassVar[str] = "token"
    kind: ClassVar[TargetKind] = "labels"
    features: ClassVar[tuple[()]] = ()
    names: ClassVar[list[str]] = []
    id: ClassVar[None] = None
    partial: ClassVar[bool] = False
    bounds: ClassVar[bool] = False

    tokens: TokenKind
    length: int
    alphabet: tuple[int, ...] = ()
    vocabulary: int | None = None
    bytes_per_token: float | None = None
    unseen: UnseenToken = "error"
    form: Literal["tokens"] = "tokens"

    @classmethod
    def learn_source(cls, table: Table, source: Source, kind: TargetKind | Mapping[str, TargetKind]) -> "TokenSchema":
        """The schema of a text, with the tokens of its validation and test files.

        Args:
            table: the text that the source has read.
            source: the source, which says what a token is.
            kind: kind of target that the head takes.

        Raises:
            MisfitError: the head takes no labels.
            UsageError: as `learn`.
        """
        if kind != "labels":
            raise MisfitError("the next token is one of many labels: expected head=categorical")
        own: Any = source
        tables = [table, source.read_validation(), source.read_test()]
        documents = [document for one in tables if one is not None for document in _text(one).corpus.documents]
        return cls.learn(documents, own.tokens, own.length, own.vocabulary, own.bytes_per_token)

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

    def code(
        self, documents: Sequence[Document], unseen: UnseenToken = "error", spans: np.ndarray | None = None
    ) -> TokenStream:
        """The documents as one stream; memory beyond it is bounded.

        Args:
            documents: at least one.
            unseen: as the attribute.
            spans: positions (start, stop) of the documents, (num_documents, 2), if the caller knows them.

        Raises:
            UsageError: a token that the alphabet lacks, or an id beyond the vocabulary; the message names places.
        """
        if spans is None:
            ends = np.cumsum([document.size for document in documents], dtype=np.int64)
            spans = np.stack([np.concatenate([[0], ends[:-1]]), ends], 1)
        size = int(spans[-1, 1])
        if self.tokens == "ids":
            return TokenStream(self._ids(documents, size), spans)
        table = np.full(_CODE_POINTS if self.tokens == "chars" else 256, -1, dtype=np.int32)
        table[list(self.alphabet)] = np.arange(self.num_tokens)
        stream, hidden, position = np.empty(size, self.dtype), None, 0
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

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target: the next token."""
        return (Target(self.target, self.kind, self.labels),)

    @property
    def observed(self) -> list[str]:
        """What is observed of a row: the next tokens."""
        return [self.target]

    @property
    def all_labels(self) -> list[str]:
        """The tokens as text."""
        return list(self.labels)

    @property
    def num_features(self) -> int:
        """Number of different tokens."""
        return self.num_tokens

    @property
    def row_shape(self) -> RowShape:
        """What a model may ask of the shape of a row."""
        return RowShape((self.length,), (self.length,), self.num_tokens, is_sequential=True)

    def of_training(self, table: Table, index: np.ndarray) -> "TokenSchema":
        """The schema as it is: the alphabet is that of all splits."""
        return self

    def adapted(self, **ways: Any) -> "TokenSchema":
        """The schema with another way to treat unseen tokens.

        Raises:
            UsageError: another way than `error` to treat missing values, or one that only tables have.
        """
        if ways.get("missing", "error") != "error":
            raise UsageError(f"data.missing={ways['missing']} is for columns of a table: expected error with a text")
        unseen = ways.get("unseen", self.unseen)
        if unseen not in ("error", "ignore"):
            raise UsageError(f"data.unseen={unseen} is for columns of a table: expected error or ignore with a text")
        return replace(self, unseen=unseen)

    def columns_of(self, features: Iterable[str] | None, setting: str) -> list[int]:
        """No columns.

        Raises:
            UsageError: some are asked for by name.
        """
        if features is not None:
            raise UsageError(f"{setting} names columns of a table: expected null with a text")
        return list(range(self.num_features))

    def reading(self, source: Source, prediction: bool = False) -> Source:
        """The source, set to read tokens as in training.

        Raises:
            UsageError: the source is not one of text.
        """
        if source.form != self.form:
            raise UsageError(
                f"data.path={getattr(source, 'path', None)}: the model takes text, and this is read as "
                f"{'a table' if source.form == 'columns' else 'arrays'}\n  expected: text"
            )
        reading = replace(source, tokens=self.tokens, length=self.length)  # type: ignore[call-arg]
        reading.prediction = prediction
        return reading

    def rows(self, table: Table, log_link: bool, target_required: bool = True, whole: bool = True) -> Rows:
        """The windows of a text as rows; the text is coded once for all of its windows.

        Args:
            table: the windows.
            log_link: ignored, since there is no exposure.
            target_required: ignored, since the text has the next tokens.
            whole: ignored.

        Raises:
            UsageError: as `code`.
        """
        text = _text(table)
        stream = text.corpus.coded(self, lambda documents, spans: self.code(documents, self.unseen, spans))
        rows = stream.rows_of(text.windows, text.length)
        return rows if text.pieces is None else rows.moving(torch.from_numpy(text.pieces))

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


def _text(table: Table) -> TextTable:
    assert isinstance(table, TextTable)
    return table


def _shown(symbol: int, kind: TokenKind) -> str:
    return repr(chr(symbol)) if kind == "chars" else f"0x{symbol:02X}"
