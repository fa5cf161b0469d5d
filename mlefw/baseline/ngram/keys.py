"""A token and those before it as one number, the key by which they are counted."""

import numpy as np

from mlefw.errors import UsageError
from mlefw.rows.tokens import TokenRows


def check_order(num_tokens: int, order: int) -> None:
    """Check that a token and the `order` tokens before it have a key that is an int64.

    Raises:
        UsageError: they have not.
    """
    if order < 1 or num_tokens ** (order + 1) >= 2**63:
        raise UsageError(
            f"baseline.order={order} with {num_tokens} tokens: expected a whole number of 1 or more with "
            f"{num_tokens}^(order + 1) below 2^63"
        )


def keys(rows: TokenRows, position: np.ndarray, num_tokens: int, order: int) -> np.ndarray:
    """The token at each position and the `order` tokens before it as one number in base K, (n,) int64.

    Before the beginning of the stream its first token is repeated: `has_context` tells such keys apart.
    """
    stream = rows.stream.numpy()
    key = stream[np.maximum(position - order, 0)].astype(np.int64)
    for back in range(order - 1, -1, -1):
        key *= num_tokens
        key += stream[np.maximum(position - back, 0)]
    return key


def has_context(rows: TokenRows, position: np.ndarray, depth: np.ndarray, order: int) -> np.ndarray:
    """Whether `order` tokens of the document precede each position, all of them known, (n,)."""
    found: np.ndarray = depth >= order
    if rows.hidden is not None:
        hidden = rows.hidden.numpy()
        for back in range(1, order + 1):
            found &= ~hidden[np.maximum(position - back, 0)]
    return found
