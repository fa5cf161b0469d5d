"""Many image files as one array of bytes, and the messages on those that cannot be taken."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mlefw.errors import UsageError
from mlefw.reading.picture import BadImageError, Header, decode, header, unlimited
from mlefw.system.warning import warn

_SHOWN = 5
"""Most files in a message."""


_RELEASE = 1024
"""Images that are decoded before memory is released."""


class Survey(NamedTuple):
    """What the headers of image files say.

    Attributes:
        shape: channels, height and width of every image when it is decoded.
        taken: positions of the files that can be taken.
    """

    shape: tuple[int, int, int]
    taken: np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Image files, decoded one at a time.

    Attributes:
        files: the files.
        names: their names in messages.
        origin: where they are from.
        size: height and width to which images are brought; None where all have one size.
        color: `gray`, `rgb`, or `auto`: grey if all images are.
        max_pixels: most pixels of an image.
        skips: whether files that cannot be taken are left out, with a warning, and are no error.
        expected: shape of the images of a model that takes them; None for any.
    """

    files: Sequence[Path]
    names: Sequence[str]
    origin: str
    size: tuple[int, int] | None = None
    color: Literal["auto", "gray", "rgb"] = "auto"
    max_pixels: float = 5e7
    skips: bool = False
    expected: tuple[int, ...] | None = None

    def survey(self) -> Survey:
        """Read the headers of all files.

        Raises:
            UsageError: files that cannot be taken, sizes that differ, or colours where the model takes grey values.
        """
        found: dict[int, Header] = {}
        bad: dict[int, str] = {}
        with unlimited():
            for k, file in enumerate(self.files):
                try:
                    found[k] = header(file, self.max_pixels)
                except BadImageError as error:
                    bad[k] = str(error)
        self._report(bad, len(found))
        if alpha := [k for k, one in found.items() if one.has_alpha]:
            warn(f"{self.origin}: images with an alpha channel, which is left out: {self._named(alpha)}")
        return Survey((self._channels(found), *self._size(found)), np.array(list(found)))

    def decode(
        self, survey: Survey, index: np.ndarray, out: np.ndarray, release: Callable[[], None] = lambda: None
    ) -> np.ndarray:
        """Decode the files at `index` into the first places of `out`; the positions of those that could be.

        Args:
            survey: what `survey` returned.
            index: positions of files, (n,).
            out: filled with images, (n, *shape), uint8.
            release: called now and then, to free the memory of what is filled.

        Raises:
            UsageError: a file is damaged, or its pixels have another size than its header says.
        """
        bad, taken = dict[int, str](), list[int]()
        with unlimited():
            for k in index.tolist():
                try:
                    pixels = decode(self.files[k], self.max_pixels, survey.shape[0], self.size)
                    if pixels.shape != survey.shape:
                        raise BadImageError(f"has {pixels.shape[1]} x {pixels.shape[2]} pixels when it is turned")
                    out[len(taken)] = pixels
                    taken.append(k)
                except BadImageError as error:
                    bad[k] = str(error)
                if k % _RELEASE == 0:
                    release()
        self._report(bad)
        return np.array(taken, dtype=np.int64)

    def _channels(self, found: dict[int, Header]) -> int:
        colored = [k for k, one in found.items() if not one.is_gray]
        if self.color != "auto":
            return 3 if self.color == "rgb" else 1
        if self.expected is None:
            return 3 if colored else 1
        if self.expected[0] == 1 and colored:
            raise UsageError(
                f"{self.origin}: {_counted(len(colored))} in colour, and the model takes grey ones"
                f"\n  {self._named(colored)}\n  expected: grey images, as in training; data.color=gray in training "
                "makes all images grey"
            )
        return self.expected[0]

    def _size(self, found: dict[int, Header]) -> tuple[int, int]:
        """The height and width of all images.

        Raises:
            UsageError: they differ, or are not as in training.
        """
        if self.size is not None:
            return self.size
        sizes = Counter((one.height, one.width) for one in found.values())
        wanted = tuple(self.expected[1:]) if self.expected is not None else None
        if len(sizes) == 1 and wanted in (None, next(iter(sizes))):
            return next(iter(sizes))
        said = [f"{count:,} of {height} x {width}" for (height, width), count in sizes.most_common(2)]
        rest = len(found) - sum(count for _, count in sizes.most_common(2))
        more = f", and {rest:,} of other sizes" if rest else ""
        remedy = "one size, or data.size=[height,width], to which images are scaled and cut"
        if wanted is not None:
            remedy = f"{wanted[0]} x {wanted[1]} pixels, as in training (there data.size brings images to one size)"
        odd = [k for k, one in found.items() if (one.height, one.width) != (wanted or sizes.most_common(1)[0][0])]
        raise UsageError(
            f"{self.origin}: images of {'other sizes' if wanted else 'different sizes'} (height x width): "
            f"{', '.join(said)}{more}\n  {self._named(odd)}\n  expected: {remedy}"
        )

    def _report(self, bad: dict[int, str], num_good: int = 1) -> None:
        """Refuse files that cannot be taken, or warn of them where they are left out.

        Raises:
            UsageError: there are some, and they are not left out, or no others are left.
        """
        if not bad:
            return
        first = [f"{self.names[k]} {why}" for k, why in list(bad.items())[:_SHOWN]]
        more = f"; and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        said = f"{len(bad):,} of {len(self.files):,} image files"
        if self.skips and num_good:
            warn(f"{self.origin}: {said} are left out: {'; '.join(first)}{more}")
            return
        remedy = "images" if self.skips else "whole images of one frame; data.bad=skip leaves these files out"
        raise UsageError(f"{self.origin}: {said} cannot be taken\n  {'; '.join(first)}{more}\n  expected: {remedy}")

    def _named(self, index: Sequence[int]) -> str:
        more = f" and {len(index) - _SHOWN:,} more" if len(index) > _SHOWN else ""
        return ", ".join(self.names[k] for k in index[:_SHOWN]) + more


def _counted(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"
