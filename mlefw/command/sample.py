"""mlefw sample: a text, or images, that a trained run draws."""

from pathlib import Path

import numpy as np

from mlefw.configuration.settings import SampleSettings
from mlefw.errors import UsageError
from mlefw.plot.style import png
from mlefw.run import pooled
from mlefw.run.checkpoint import Trained
from mlefw.run.new_data import check_folder, check_output
from mlefw.run.sample_pixels import grid, sample_pixels
from mlefw.run.text_sample import check_draws, text_sample, text_schema
from mlefw.schema.pixels import PixelSchema
from mlefw.system import random_state
from mlefw.system.atomic import write_atomically, write_bytes
from mlefw.system.local_path import local_path
from mlefw.system.own_folder import mark_own
from mlefw.system.random_state import isolated

_UNITS = {"chars": "characters", "bytes": "bytes", "ids": "ids"}


@isolated("sampling")
def run(config: SampleSettings, plugins: tuple[str, ...] = ()) -> str:
    """Draw a text or images from a trained run, and write them to `output`, if set; what is to be printed.

    That is the text, with U+FFFD for bytes that are no UTF-8, or the file, and a line on what was drawn and how.

    Raises:
        UsageError: a mistake in settings, prompt or checkpoint, or the run is one on neither text nor pixels.
    """
    if not config.run:
        raise UsageError("run= is missing: expected a run directory or a .ckpt file")
    check_draws(config.length, config.seed, config.temperature)
    output = local_path(config.output, "output") if config.output else None
    if output is not None:
        check_output(output, config.overwrite)
        check_folder(output)
    trained = pooled.load(config.run, plugins)
    for path in pooled.paths_of(config.run):
        mark_own(path)
    if isinstance(trained.schema, PixelSchema):
        return _draw_images(config, trained, output)
    schema = text_schema(trained)
    given = (config.length, config.prompt, config.seed, config.temperature)
    found = text_sample(trained.objective, schema, *given)
    note = f"{config.length} {_UNITS[schema.tokens]} {_how(config, trained)}"
    if output is None:
        return f"{_shown(found)}\n({note})"
    write_bytes(output, _raw(found))
    return f"written: {output.absolute()}\n({note})"


def _draw_images(config: SampleSettings, trained: Trained, output: Path | None) -> str:
    """Write images to a picture of all of them, or as an array."""
    if config.prompt:
        raise UsageError(f"prompt={config.prompt}: the run forecasts pixels\n  expected: no prompt; num=16 images")
    if output is None or output.suffix not in (".png", ".npz"):
        raise UsageError(f"output={config.output}: expected a file for the images that ends in .png or .npz")
    images = sample_pixels(trained, config.num, random_state.generator(config.seed, "sample"), config.temperature)
    note = f"{config.num} images {_how(config, trained)}"
    if output.suffix == ".npz":
        write_atomically(output, lambda file: np.savez(file, allow_pickle=False, x=images))
    else:
        write_bytes(output, png(grid(images, f"{config.num} images drawn from the model", note)))
    return f"written: {output.absolute()}\n({note})"


def _how(config: SampleSettings, trained: Trained) -> str:
    drawn = f"drawn by {trained.path}, seed {config.seed}"
    if config.temperature == 1:
        return drawn
    return f"{drawn}, temperature {config.temperature:g} (the model's own distribution has 1)"


def _shown(found: str | bytes | np.ndarray) -> str:
    if isinstance(found, np.ndarray):
        return " ".join(map(str, found.tolist()))
    return found if isinstance(found, str) else found.decode("utf-8", "replace")


def _raw(found: str | bytes | np.ndarray) -> bytes:
    return found if isinstance(found, bytes) else _shown(found).encode()
