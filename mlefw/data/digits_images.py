"""The handwritten digits that come with scikit-learn, as images."""

from dataclasses import dataclass

import numpy as np
from sklearn import datasets

from mlefw.data.tensor_source import TensorSource
from mlefw.reading.arrays import ArrayTable


@dataclass(kw_only=True)
class DigitsImages(TensorSource):
    """Reads 1,797 grey images `x`, (1, 8, 8) with values from 0 to 16, and their labels `digit`, 0 to 9.

    Source: Alpaydin & Kaynak (1998), optical recognition of handwritten digits; the test part of the data set.
    """

    target: str | list[str] | None = "digit"

    @property
    def pixel_range(self) -> list[float]:
        """The values of pixels, 0 and 16, unless others are asked for."""
        return self.range or [0, 16]

    def load(self) -> ArrayTable:
        """All images, as bytes."""
        data = datasets.load_digits()
        images = np.asarray(data.images).astype(np.uint8)[:, np.newaxis]
        return ArrayTable({"x": images, "digit": np.asarray(data.target)}, "digits (bundled with scikit-learn)")
