"""What every augmentation must do: one table of examples, every test over all of them; and what each one does."""

import pkgutil
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import mlefw.augment
from mlefw.augment.base import Augment
from mlefw.augment.flip import Flip
from mlefw.augment.shift import Shift
from mlefw.augment.shift_flip import ShiftFlip
from mlefw.errors import UsageError
from mlefw.model.cnn import Cnn
from mlefw.objective.gradient import is_replayable
from mlefw.objective.tape import Tape
from mlefw.rows.shape import RowShape
from mlefw.rows.tensor_inputs import StandardizedChannels, unit_statistics
from mlefw.testing.augment import check_augment

EXAMPLES: dict[str, list[Augment]] = {
    "shift": [Shift(), Shift(1), Shift(4)],
    "flip": [Flip()],
    "shift_flip": [ShiftFlip(), ShiftFlip(3)],
}
CASES = [(name, augment) for name, augments in EXAMPLES.items() for augment in augments]
each = pytest.mark.parametrize(("name", "augment"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)])


def test_every_member_has_an_example() -> None:
    modules = {module.name for module in pkgutil.iter_modules(mlefw.augment.__path__)}
    assert modules - {"base"} == set(EXAMPLES)
    yaml = {file.stem for file in Path("conf/augment").glob("*.yaml")}
    assert yaml - {"none"} == set(EXAMPLES)


@each
@pytest.mark.parametrize("shape", [(1, 5, 6), (3, 8, 5)])
def test_the_public_checks(name, augment, shape) -> None:
    check_augment(augment, shape)


@each
@pytest.mark.parametrize(("shape", "positions"), [((13,), ()), ((7, 2), ()), ((1, 8, 8), (8, 8))])
def test_rows_that_are_no_images_with_one_target_are_refused(name, augment, shape, positions) -> None:
    with pytest.raises(UsageError, match=r"augment=.*expected an image \(channels, height, width\) with one target"):
        augment.check(shape, positions)


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """An image (height, width) moved down and to the right, its border repeated: padded by numpy, and cut out."""
    far = max(abs(down), abs(right)) + 1
    padded = np.pad(image, far, mode="edge")
    height, width = image.shape
    return padded[far - down : far - down + height, far - right : far - right + width]


@pytest.mark.parametrize("pixels", [1, 2])
def test_a_shift_is_one_of_all_equally_likely_ones(pixels: int) -> None:
    torch.manual_seed(0)
    image, num_rows = np.stack([np.arange(20.0).reshape(4, 5), np.arange(100.0, 120.0).reshape(4, 5)]), 4000
    found = Shift(pixels)(torch.tensor(image)[None].repeat(num_rows, 1, 1, 1)).numpy()
    steps = range(-pixels, pixels + 1)
    known = {np.stack([shifted(c, down, right) for c in image]).tobytes(): 0 for down in steps for right in steps}
    counts = Counter(one.tobytes() for one in found)
    assert counts.keys() == known.keys()
    expected = num_rows / len(known)
    # A sum of squared normals, one for each shift: more than 4 standard deviations from its mean is no chance.
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    assert statistic < len(known) + 4 * (2 * len(known)) ** 0.5


def test_half_of_all_images_are_reflected() -> None:
    torch.manual_seed(0)
    image = torch.arange(24.0).reshape(1, 2, 3, 4)
    found = Flip()(image.repeat(1000, 1, 1, 1)).numpy()
    counts = Counter(one.tobytes() for one in found)
    assert set(counts) == {image.numpy()[0].tobytes(), image.numpy()[0, :, :, ::-1].tobytes()}
    assert abs(counts[image.numpy()[0].tobytes()] - 500) < 4 * 250**0.5


def test_shift_flip_does_both() -> None:
    torch.manual_seed(0)
    image = np.arange(20.0).reshape(1, 4, 5)
    found = ShiftFlip(1)(torch.tensor(image)[None].repeat(2000, 1, 1, 1)).numpy()
    steps = (-1, 0, 1)
    known = [
        shifted(side, down, right)[None] for side in (image[0], image[0, :, ::-1]) for down in steps for right in steps
    ]
    assert {one.tobytes() for one in found} == {np.ascontiguousarray(one).tobytes() for one in known}


@pytest.mark.parametrize("pixels", [0, -1])
def test_a_shift_of_nothing_is_refused(pixels: int) -> None:
    with pytest.raises(UsageError, match=rf"augment\.pixels={pixels}: expected a whole number of at least 1"):
        Shift(pixels)


def test_a_shift_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(UsageError, match=re.escape("augment.pixels=4: images have 8 x 4 pixels: expected fewer")):
        Shift(4).check((1, 8, 4))


@each
def test_training_alone_sees_changed_rows_and_a_tape_draws_them_as_autograd_does(name, augment) -> None:
    shape = RowShape((2, 6, 7))
    model = Cnn(shape.input_shape, 3, channels=[4])
    torch.nn.init.normal_(model.last.weight)
    whole = StandardizedChannels(model, *unit_statistics(shape), shape, augment=augment)
    parameters = list(whole.parameters())
    assert is_replayable(whole)
    x = torch.randint(256, (5, *shape.input_shape), dtype=torch.uint8)

    def descend(x):
        with torch.enable_grad():
            loss = whole(x).square().sum()
            return [loss.detach(), *torch.autograd.grad(loss, parameters)]

    whole.train()
    tape = Tape(descend, [x])
    torch.manual_seed(5)
    replayed = tape(x)
    torch.manual_seed(5)
    assert all(torch.equal(one, other) for one, other in zip(replayed, descend(x), strict=True))
    assert not torch.equal(tape(x)[0], replayed[0])
    with torch.no_grad():
        assert torch.equal(whole.eval()(x), model(x.float()))
