"""A fingerprint of rows, equal only for rows that are equal to the last bit and in order."""

import hashlib
from collections.abc import Iterator

from torch import Tensor

from mlefw.rows.rows import Rows
from mlefw.rows.tokens import TokenRows


def fingerprint(rows: Rows) -> str:
    """SHA-256, as 64 hexadecimal digits, of the shapes, types and values of coded rows."""
    digest = hashlib.sha256(str([(tuple(column.shape), str(column.dtype)) for column in rows]).encode())
    for piece in _stored(rows):
        digest.update(piece.contiguous().cpu().numpy().data)
    return digest.hexdigest()


def _stored(rows: Rows) -> Iterator[Tensor]:
    """The values that make up rows, piece by piece: of windows of tokens the stream and the windows."""
    if isinstance(rows, TokenRows):
        yield from rows.stream.split(2**20)
        yield from rows.windows
        yield from () if rows.hidden is None else rows.hidden.split(2**20)
    else:
        for part in rows.blocks(65536):
            yield from part
