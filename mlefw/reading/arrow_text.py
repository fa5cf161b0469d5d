"""Text columns of Arrow as distinct strings and which of them each row has."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """Whether values of the type are strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def encoded(pieces: Iterable[pa.ChunkedArray]) -> pa.DictionaryArray:
    """The pieces of a column of strings, or of what becomes strings, as one; distinct values in order of appearance.

    Of a column that is a dictionary already, its values are kept in their order, with those that no row has.
    """
    chunks = [_encoded(chunk) for piece in pieces for chunk in piece.chunks]
    if not chunks:
        return pa.array([], pa.string()).dictionary_encode()
    whole = pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def strings(column: pa.DictionaryArray) -> np.ndarray:
    """One `str` for each row, (n,), of which rows with the same value share one; of a missing one it is empty."""
    distinct = np.array(
        [*("" if value is None else value for value in column.dictionary.to_pylist()), ""], dtype=object
    )
    return np.asarray(distinct[np.asarray(column.indices.fill_null(len(distinct) - 1), dtype=np.int64)])


def is_missing(column: pa.DictionaryArray) -> np.ndarray:
    """Which rows have no value, (n,)."""
    return np.asarray(column.indices.is_null().cast(pa.uint8()), dtype=bool)


def _encoded(chunk: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(chunk.type):
        return chunk.cast(pa.string()).dictionary_encode()
    # Arrow has no cast of a dictionary whose strings are views, as those of polars are.
    values = chunk.dictionary.cast(pa.string())
    if values.null_count:
        return values.take(chunk.indices).dictionary_encode()
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), values)
