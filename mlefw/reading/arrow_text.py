"""Text columns of Arrow as dictionary arrays: distinct strings, and the index of each row's string."""

from collections.abc import Iterable
from contextlib import suppress

import numpy as np
import pyarrow as pa


def is_text(kind: pa.DataType) -> bool:
    """Whether values of the type are strings."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def encoded(pieces: Iterable[pa.ChunkedArray]) -> pa.DictionaryArray:
    """A column of strings, or of values cast to strings, as one dictionary array in order of first appearance.

    A dictionary column keeps its values and their order, including values that no row has.
    """
    chunks = [_encoded(chunk) for piece in pieces for chunk in piece.chunks]
    if not chunks:
        return pa.array([], pa.string()).dictionary_encode()
    whole = pa.chunked_array(chunks).unify_dictionaries().combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def strings(column: pa.DictionaryArray) -> np.ndarray:
    """The string of each row, (n,), shared by rows of equal value; "" where it is missing."""
    distinct = np.array(
        [*("" if value is None else value for value in column.dictionary.to_pylist()), ""], dtype=object
    )
    return np.asarray(distinct[np.asarray(column.indices.fill_null(len(distinct) - 1), dtype=np.int64)])


def is_missing(column: pa.DictionaryArray) -> np.ndarray:
    """Whether each row is missing, (n,)."""
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
    # Arrow cannot cast a dictionary whose values are string views, as polars makes them.
    values = chunk.dictionary.cast(pa.string())
    if values.null_count:
        return values.take(chunk.indices).dictionary_encode()
    return pa.DictionaryArray.from_arrays(chunk.indices.cast(pa.int32()), values)
