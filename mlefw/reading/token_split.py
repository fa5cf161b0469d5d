"""How the tokens of documents are shared out among test, validation and training."""

from typing import Literal

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.shares import drawn

TokenRule = Literal["tail", "documents"]
"""`tail`: the last tokens are test, those before them validation; `documents`: whole documents at random."""


def split_tokens(
    documents: np.ndarray, rule: TokenRule, validation: float, test: float, seed: int, length: int
) -> dict[str, np.ndarray]:
    """The documents of each split, positions (start, stop) in the stream, (num_documents, 2) int64.

    A split without a share is absent. With `tail` a document may be cut in two: windows never cross the cut.

    Args:
        documents: positions (start, stop) of all documents, one behind the other, (num_documents, 2) int64.
        rule: `tail` or `documents`.
        validation: share of the tokens, or of the documents, that validate.
        test: share of the tokens, or of the documents, that test.
        seed: of the draw of documents.
        length: number of positions of a window.

    Raises:
        UsageError: too few documents, or fewer than `length` + 1 tokens in a split.
    """
    shares = {name: share for name, share in (("test", test), ("validation", validation)) if share > 0}
    found = _tail(documents, shares) if rule == "tail" else _whole(documents, shares, seed)
    for name, part in found.items():
        check_long_enough(part, length, f"the {name} split", "a longer text, a larger share, or a smaller data.length")
    return {name: found[name] for name in ("train", "validation", "test") if name in found}


def check_long_enough(documents: np.ndarray, length: int, what: str, remedy: str) -> None:
    """Check that documents hold a window's tokens and the one after it, and two in one of them.

    Raises:
        UsageError: they do not.
    """
    sizes = documents[:, 1] - documents[:, 0]
    count = int(sizes.sum())
    if count < length + 1:
        raise UsageError(
            f"{what} has {count} tokens, and one window needs {length + 1} (data.length={length} and the one after it)"
            f"\n  expected: {remedy}"
        )
    check_scored(documents, what)


def check_scored(documents: np.ndarray, what: str) -> None:
    """Check that one of some documents holds two tokens, of which the second can be scored.

    Raises:
        UsageError: none does.
    """
    if int((documents[:, 1] - documents[:, 0]).max()) < 2:
        raise UsageError(f"{what} holds documents of one token only, which none precedes\n  expected: longer documents")


def _tail(documents: np.ndarray, shares: dict[str, float]) -> dict[str, np.ndarray]:
    begin, end = int(documents[0, 0]), int(documents[-1, 1])
    num_tokens, found = end - begin, {}
    for name, share in shares.items():
        cut = end - round(share * num_tokens)
        found[name] = _between(documents, max(cut, begin), end)
        end = max(cut, begin)
    return {**found, "train": _between(documents, begin, end)}


def _between(documents: np.ndarray, start: int, stop: int) -> np.ndarray:
    cut = np.clip(documents, start, stop)
    kept: np.ndarray = cut[cut[:, 0] < cut[:, 1]]
    return kept if len(kept) else np.array([[start, start]], dtype=np.int64)


def _whole(documents: np.ndarray, shares: dict[str, float], seed: int) -> dict[str, np.ndarray]:
    count = len(documents)
    counts = {name: max(1, round(share * count)) for name, share in shares.items()}
    if sum(counts.values()) >= count:
        raise UsageError(
            f"data.split=documents: {count} documents for {' and '.join([*counts, 'train'])}"
            f"\n  expected: more than {sum(counts.values())} documents (one per file), or data.split=tail"
        )
    parts = drawn(count, counts, np.random.default_rng(seed))
    return {name: documents[np.sort(index)] for name, index in parts.items()}
