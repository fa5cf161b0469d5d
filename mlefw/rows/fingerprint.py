"""A fingerprint of rows, equal only for rows that are equal to the last bit and in order."""

import hashlib

from mlefw.rows.rows import Rows


def fingerprint(rows: Rows) -> str:
    """SHA-256, as 64 hexadecimal digits, of the shapes, types and values of coded rows."""
    digest = hashlib.sha256(str([(tuple(column.shape), str(column.dtype)) for column in rows]).encode())
    for part in rows.blocks(65536):
        for column in part:
            digest.update(column.contiguous().cpu().numpy().data)
    return digest.hexdigest()
