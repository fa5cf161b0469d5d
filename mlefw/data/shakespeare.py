"""A million characters of Shakespeare, which come with the package."""

import lzma
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlefw.data.text_source import TextSource
from mlefw.errors import UsageError
from mlefw.reading.documents import Document, as_documents

_FILE = Path(__file__).parent / "tinyshakespeare.txt.xz"


@dataclass(kw_only=True)
class Shakespeare(TextSource):
    """Reads 1,115,394 characters of plays of William Shakespeare, 65 of them different, as one document.

    Source: the collection "tiny shakespeare" of Karpathy (2015), "The unreasonable effectiveness of recurrent neural
    networks"; the text itself is in the public domain.
    """

    def load(self) -> Sequence[Document]:
        """The text.

        Raises:
            UsageError: `tokens` is `ids`.
        """
        if self.tokens == "ids":
            raise UsageError("data.tokens=ids: expected chars or bytes, since data=shakespeare is text")
        raw = lzma.decompress(_FILE.read_bytes())
        return as_documents(raw if self.tokens == "bytes" else raw.decode())
