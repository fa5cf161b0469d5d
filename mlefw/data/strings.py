"""Text in memory, handed over by a Python program."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlefw.data.frame import handed_over
from mlefw.data.text_source import TextSource
from mlefw.errors import UsageError
from mlefw.reading.documents import Document, TokenKind, as_documents
from mlefw.reading.text_table import TextTable


@dataclass(kw_only=True)
class Strings(TextSource):
    """Text that a Python program hands over: `str`, bytes, a vector of ids, or several of these, each a document."""

    def load(self) -> Sequence[Document]:
        """The documents to split.

        Raises:
            UsageError: there are none, since the run was started by another program.
        """
        given = handed_over("rows")
        if given is None:
            raise UsageError(
                "data=strings: the text of this run came from Python, and no file has it"
                "\n  expected: data.path=FILE where text is to be predicted or scored, data=text for training, or in "
                "Python mlefw.fit.fit"
            )
        return self._documents(given)

    def read_validation(self) -> TextTable | None:
        """The windows of the validation text, if the program gave any."""
        return self._other("validation")

    def read_test(self) -> TextTable | None:
        """The windows of the test text, if the program gave any."""
        return self._other("test")

    def _other(self, name: str) -> TextTable | None:
        given = handed_over(name)
        return None if given is None else self.whole(self._documents(given))

    def _documents(self, given: Any) -> Sequence[Document]:
        each = [given] if isinstance(given, str | bytes) or hasattr(given, "shape") else list(given)
        return as_documents([self._as_asked(one) for one in each])

    def _as_asked(self, one: Any) -> str | bytes | np.ndarray:
        """A document in the form that `tokens` asks for: text is written in UTF-8, and bytes are read as UTF-8.

        Raises:
            UsageError: bytes that are no UTF-8, ids in place of text, or text in place of ids.
        """
        if isinstance(one, str | bytes) == (self.tokens == "ids"):
            raise UsageError(
                f"data.tokens={self.tokens}, and the text is {type(one).__name__}\n  expected: "
                + ("whole numbers, shape (n,)" if self.tokens == "ids" else "str, or bytes")
            )
        if isinstance(one, str):
            return one.encode() if self.tokens == "bytes" else one
        if not isinstance(one, bytes):
            return np.asarray(one)
        try:
            return one if self.tokens == "bytes" else one.decode()
        except UnicodeDecodeError as error:
            raise UsageError(
                f"the text is not UTF-8: byte 0x{one[error.start]:02X} at byte offset {error.start}"
                "\n  expected: UTF-8; data.tokens=bytes takes any bytes"
            ) from None


def token_kind(data: Any) -> TokenKind | None:
    """What the tokens of text in memory are: characters of str, bytes, or ids of a vector; None if it is no text.

    Args:
        data: str, bytes, a vector of whole numbers, a list of these, or anything else.
    """
    if isinstance(data, list | tuple) and data:
        kinds = {token_kind(one) if not isinstance(one, list | tuple) else None for one in data}
        return kinds.pop() if len(kinds) == 1 else None
    if isinstance(data, str):
        return "chars"
    if isinstance(data, bytes):
        return "bytes"
    is_vector = hasattr(data, "shape") and hasattr(data, "dtype") and len(data.shape) == 1
    return "ids" if is_vector and np.asarray(data).dtype.kind in "iu" else None
