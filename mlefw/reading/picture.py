"""Image files as bytes: what the header of a file says, and the decoding of one file."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from mlefw.errors import is_out_of_memory

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
"""Endings of the names of image files, in lower case."""

_FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded. Pillow knows more formats, and starts other programs for some of them."""

_GRAY = ("1", "L", "LA", "La")
"""Pillow's modes without colour; the numbers of a palette are colours."""


class BadImageError(Exception):
    """An image file cannot be taken; the message says why, in words that follow the name of the file."""


class Header(NamedTuple):
    """What an image is known to be before it is decoded; its size is that after the turn that EXIF asks for."""

    height: int
    width: int
    is_gray: bool
    has_alpha: bool


def header(file: Path, max_pixels: float) -> Header:
    """The header of an image file.

    Raises:
        BadImageError: it is no image file, or is one of several frames, more than `max_pixels`, or more than 8 bits.
    """
    with _opened(file, max_pixels) as image:
        width, height = image.size
        # A PNG file with the tag behind its pixels would be decoded here; TIFF files have their size after the turn.
        asked = image.format != "TIFF" and (image.format != "PNG" or "exif" in image.info)
        if asked and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8):
            width, height = height, width
        return Header(height, width, image.mode in _GRAY, image.has_transparency_data)


def decode(file: Path, max_pixels: float, num_channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """The pixels of an image file, (num_channels, height, width), uint8; turned as EXIF asks, alpha left out.

    Args:
        file: the file.
        max_pixels: most pixels, by the header.
        num_channels: 1 for grey values, 3 for red, green and blue.
        size: height and width to which the image is scaled by its shorter side, and cut around its centre, with
            bilinear weights; None for its own size.

    Raises:
        BadImageError: the file is damaged, or as `header`.
    """
    with _opened(file, max_pixels) as image:
        turned = ImageOps.exif_transpose(image)
        if turned.mode in ("RGBa", "La"):
            turned = turned.convert("RGBA")
        plain = turned.convert("L" if num_channels == 1 else "RGB")
        if size is not None and plain.size != size[::-1]:
            plain = ImageOps.fit(plain, size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(plain)
    return pixels[np.newaxis] if num_channels == 1 else pixels.transpose(2, 0, 1)


def text(name: str | Path) -> str:
    """The name of a file as text, in which bytes that are no UTF-8 are replaced."""
    return os.fsencode(name).decode("utf-8", "replace")


@contextmanager
def unlimited() -> Iterator[None]:
    """Leave limits on the number of pixels to `max_pixels` in the block: Pillow's own are global, and fixed."""
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            # What Pillow finds odd in a file, such as a broken EXIF block, is no fault of its pixels.
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def _opened(file: Path, max_pixels: float) -> Iterator[Image.Image]:
    """An image whose header is read and checked; whatever fails in the block becomes a `BadImageError`."""
    try:
        with Image.open(file, formats=_FORMATS) as image:
            _check(image, max_pixels)
            yield image
    except BadImageError:
        raise
    except UnidentifiedImageError:
        empty = file.stat().st_size == 0
        raise BadImageError("is empty" if empty else f"is none of {', '.join(_FORMATS)}") from None
    except Exception as error:
        # Decoders raise errors of all kinds for damaged files.
        if is_out_of_memory(error):
            raise
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise BadImageError(f"cannot be decoded ({said})") from None


def _check(image: Image.Image, max_pixels: float) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise BadImageError(f"has {height} x {width} pixels, more than data.max_pixels={max_pixels:g}")
    # A photograph of several pictures (MPO) has the main one first; the others are previews.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise BadImageError(f"has {getattr(image, 'n_frames', 'several')} frames")
    if image.mode.startswith(("I", "F")):
        raise BadImageError("has more than 8 bits for a grey value (data=npz takes such arrays)")
