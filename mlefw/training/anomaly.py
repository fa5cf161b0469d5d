"""Where NaN in a backward pass came from, for `trainer.detect_anomaly=true`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mlefw.errors import NumericalError

_SIGN = "returned nan values in its"
"""What torch says of a function whose backward pass gave NaN."""


@contextmanager
def anomalies_as_errors() -> Iterator[None]:
    """Turn the error by which torch tells of NaN into one of mlefw, with the lines of code that made the function.

    Without `torch.autograd.detect_anomaly` nothing is done. Torch tells the lines in a warning, which commands of mlefw
    do not show.

    Raises:
        NumericalError: a backward pass in the block gave NaN.
    """
    if not torch.is_anomaly_enabled():
        yield
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            yield
        except RuntimeError as error:
            if _SIGN not in str(error):
                raise
            traces = [str(one.message).strip() for one in seen if "forward call" in str(one.message)]
            raise NumericalError("\n".join([str(error), *traces[-1:]])) from error
    for one in seen:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
