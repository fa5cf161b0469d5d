"""Text from files, for the likelihood of the next token."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlefw.data.text_source import TextSource
from mlefw.reading.documents import Document, IdType, read_documents
from mlefw.reading.text_table import TextTable


@dataclass(kw_only=True)
class Text(TextSource):
    """Reads a file, all files of a folder, or the files that match a pattern; each file is one document.

    Attributes:
        path: file, folder or pattern.
        validation_path: file, folder or pattern of the validation text; by default it is a share of `path`.
        test_path: file, folder or pattern of the test text; by default it is a share of `path`.
        dtype: type of the ids in the files, little-endian, one behind the other (tokens=ids).
    """

    path: str | None = None
    validation_path: str | None = None
    test_path: str | None = None
    dtype: IdType = "uint16"

    @classmethod
    def reads(cls, path: str) -> bool:
        """True: any file can be text."""
        return True

    def load(self) -> Sequence[Document]:
        """The documents of `path`."""
        return read_documents(self.path, self.tokens, self.dtype)

    def read_validation(self) -> TextTable | None:
        """The windows of `validation_path`, if set."""
        return self._whole_of(self.validation_path, "data.validation_path")

    def read_test(self) -> TextTable | None:
        """The windows of `test_path`, if set."""
        return self._whole_of(self.test_path, "data.test_path")

    def _whole_of(self, path: str | None, setting: str) -> TextTable | None:
        return self.whole(read_documents(path, self.tokens, self.dtype, setting)) if path else None
