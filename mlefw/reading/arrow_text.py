"""Text columns of Arrow as distinct strings and which of them each row has."""

from collections.abc import Iterable
from contextlib import suppress

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


def moments(column: pa.DictionaryArray) -> np.ndarray | None:
    """Dates and times in ISO 8601, such as `2024-05-31` or `2024-05-31 12:30`, as microseconds, (n,) int64.

    None where some of the strings are not. A missing one becomes 0.
    """
    for kind in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
        with suppress(pa.ArrowInvalid):
            known = np.asarray(column.dictionary.cast(kind).cast(pa.int64()).fill_null(0))
            return np.asarray(np.append(known, 0)[np.asarray(column.indices.fill_null(len(known)), dtype=np.int64)])
    return None


def _encoded(chunk: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(chunk.type):
        return chunk.cast(pa.string()).dictionary_encode()
    # Arrow has no cast of a dictionary whose strings are views, as those of polars are.
    values = chunk.dictionary.cast(pa.string())
    if values.null_count:
        return values.take(chunk.indices).dictionary_encode()
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), values)
