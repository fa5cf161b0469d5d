"""Objects of object stores: Amazon S3 and what speaks its language (s3), Google Cloud Storage (gs)."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pyarrow import ArrowException

from mlefw.errors import MlefwError, StorageError, UsageError
from mlefw.reading.remote.content import Content, Version

RETRY_TIME = timedelta(seconds=30)
"""How long requests to Google Cloud Storage are repeated; those to S3 are made up to three times."""

_DENIED = re.compile(
    r"ACCESS_DENIED|ACCESS_KEY|SIGNATURE|CREDENTIAL|TOKEN|UNRECOGNIZED_CLIENT|OPT_IN|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|status 40[013]"
)
_MISSING = re.compile(r"NO_SUCH|NOT_FOUND|status 404")
_ELSEWHERE = re.compile(r"status 30\d|REDIRECT|AUTHORIZATION_HEADER_MALFORMED")
_BEYOND = re.compile(r"status 416|INVALID_RANGE|OUT_OF_RANGE")
_CODE = re.compile(r"AWS Error (.+?) during (\w+)|Status\((\w+)|(curlCode: \d+, [^;.]+)")
"""What a message tells that holds no more than codes."""


def bucket_and_key(address: str) -> tuple[str, str]:
    """The bucket of an address, and the name in it, which may be empty.

    Raises:
        UsageError: it has no bucket.
    """
    bucket, _, key = address.partition("://")[2].partition("/")
    if not bucket:
        raise UsageError(f"{address} names no bucket\n  expected: an address such as s3://bucket/folder/a.parquet")
    return bucket, key


class StoredContent(Content):
    """An object of an object store.

    Raises:
        StorageError, UsageError: as `fetch`.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.file, self.version = self._open()

    def fetch(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`; see `Content.fetch`."""
        with explained(self.address, f"bytes {start:,} to {stop - 1:,}"):
            found: bytes = self.file.read_at(stop - start, start)
        if len(found) != stop - start:
            self.check()
            raise StorageError(f"{self.address}: {len(found):,} bytes came of those from {start:,} to {stop - 1:,}")
        return found

    def current(self) -> Version:
        """The version that the store has now."""
        file, version = self._open()
        file.close()
        return version

    def close(self) -> None:
        """Close the object."""
        self.file.close()

    def _open(self) -> tuple[Any, Version]:
        bucket, key = bucket_and_key(self.address)
        with explained(self.address, "its size"):
            try:
                file = filesystem(self.address).open_input_file(f"{bucket}/{key}")
            except FileNotFoundError:
                raise missing(self.address) from None
            said = {name.lower(): value.decode() for name, value in (file.metadata() or {}).items()}
            # Google numbers the states of an object; its ETag changes with what is noted beside it, too.
            tag = said.get("generation") or said.get("etag") or said.get("last-modified") or ""
            return file, Version(file.size(), tag)


def missing(address: str, what: str = "does not exist") -> UsageError:
    """The error for an address at which there is nothing, which is that of the bucket where it is missing.

    Args:
        address: of an object, or a pattern.
        what: end of the sentence where there is such a bucket.
    """
    from pyarrow import fs

    bucket, _ = bucket_and_key(address)
    with explained(address, "its bucket"):
        is_there = filesystem(address).get_file_info(bucket).type != fs.FileType.NotFound
    return UsageError(f"{address} {what if is_there else f'does not exist: there is no bucket {bucket}'}")


def filesystem(address: str) -> Any:
    """The file system of pyarrow for an address, with the credentials and the endpoint of the environment."""
    scheme, bucket = address.partition("://")[0].lower(), bucket_and_key(address)[0]
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith(("AWS_", "GOOGLE_", "STORAGE_"))))
    # Connections do not outlive a fork.
    return (_google if scheme == "gs" else _amazon)(bucket, os.getpid(), settings)


@lru_cache(maxsize=8)
def _amazon(bucket: str, process: int, settings: tuple[tuple[str, str], ...]) -> Any:
    """S3, or what is at `AWS_ENDPOINT_URL`, in the region of the environment, else of the bucket."""
    from pyarrow import fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(region=region, endpoint_override=endpoint)


@lru_cache(maxsize=8)
def _google(bucket: str, process: int, settings: tuple[tuple[str, str], ...]) -> Any:
    """Google Cloud Storage, or without credentials the emulator at `STORAGE_EMULATOR_HOST`."""
    from pyarrow import fs

    if endpoint := os.environ.get("STORAGE_EMULATOR_HOST"):
        url = urlsplit(endpoint if "://" in endpoint else f"http://{endpoint}")
        more = {"anonymous": True, "scheme": url.scheme, "endpoint_override": url.netloc}
        return fs.GcsFileSystem(retry_time_limit=RETRY_TIME, **more)
    return fs.GcsFileSystem(retry_time_limit=RETRY_TIME)


@contextmanager
def explained(address: str, asked: str) -> Iterator[None]:
    """Turn errors of pyarrow into those of mlefw. Their text is not passed on, but for codes: it may hold keys.

    Args:
        address: what is read.
        asked: the part of it, for messages.

    Raises:
        StorageError: the connection broke, also when it was tried again.
        UsageError: there is no such object or bucket, or it may not be read.
    """
    try:
        yield
    except (OSError, ArrowException) as error:
        raise _error(address, asked, str(error)) from None


def _error(address: str, asked: str, text: str) -> MlefwError:
    found = _CODE.findall(text)
    codes = " ".join(dict.fromkeys(part for parts in found for part in parts if part)) or "no reason given"
    if _MISSING.search(codes):
        return UsageError(f"{address} does not exist ({codes})")
    if _ELSEWHERE.search(codes):
        return UsageError(f"{address} is in another region ({codes})\n  expected: AWS_REGION names that of the bucket")
    if _DENIED.search(codes):
        where = "GOOGLE_APPLICATION_CREDENTIALS" if address[:2].lower() == "gs" else "AWS_ACCESS_KEY_ID, AWS_PROFILE"
        return UsageError(
            f"{address} may not be read ({codes})\n  expected: credentials that allow it, in the environment ({where})"
        )
    if _BEYOND.search(codes):
        return UsageError(f"{address} ends before {asked} ({codes})")
    return StorageError(f"{address} could not be read: asked several times for {asked} ({codes})")
