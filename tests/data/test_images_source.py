"""Image files: what is decoded, by labels or a table, and errors with place and remedy for all that can be wrong."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from mlefw.data.images import Images
from mlefw.errors import UsageError
from mlefw.head.categorical import CategoricalHead
from mlefw.reading.arrays import ArrayTable
from mlefw.rows.stored import StoredRows
from mlefw.schema.encode import coded
from mlefw.schema.kinds import learn_schema

RANDOM = np.random.default_rng(0)
RGB = RANDOM.integers(0, 255, (12, 6, 5, 3)).astype(np.uint8)
LABELS = ["dog"] * 5 + ["cat"] * 7


def photos(folder: Path, arrays: np.ndarray = RGB, labels: list[str] | None = None, suffix: str = ".png") -> Path:
    """A folder of images with a sub-folder for each label; the number of a file is its row in `arrays`."""
    for k, (array, label) in enumerate(zip(arrays, labels or LABELS, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / label / f"{k:03d}{suffix}")
    return folder


def loaded(source: Images) -> ArrayTable:
    table = source.read()
    assert isinstance(table, ArrayTable)
    return table


def test_a_folder_gives_bytes_labels_and_names_in_the_order_of_its_files(tmp_path: Path) -> None:
    table = loaded(Images(path=str(photos(tmp_path))))
    order = [*range(5, 12), *range(5)]  # the cats come first
    assert table.columns["x"].dtype == np.uint8
    assert np.array_equal(table.columns["x"], RGB[order].transpose(0, 3, 1, 2))
    assert table.columns["label"].tolist() == [LABELS[k] for k in order]
    assert table.columns["id"].tolist() == [f"{LABELS[k]}/{k:03d}.png" for k in order]
    schema = learn_schema(table, Images(path="photos"), "labels")
    assert schema.labels == ("cat", "dog") and schema.row_shape.input_shape == (3, 6, 5) and schema.id == "id"
    assert schema.rows(table, False).y.tolist() == [0] * 7 + [1] * 5


def test_files_below_sub_folders_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "old").mkdir()
    Image.fromarray(RGB[0]).save(folder / "cat" / "old" / "1.PNG")
    for hidden in (".cache/1.png", "cat/._1.png", "__MACOSX/1.png", "dog/Thumbs.db"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).write_bytes(b"no image")
    (folder / "README.md").write_text("no image, and in no sub-folder")
    names = loaded(Images(path=str(folder))).columns["id"].tolist()
    assert len(names) == 13 and "cat/old/1.PNG" in names


def saved(file: Path, image: Image.Image, **options: Any) -> Path:
    image.save(file, **options)
    return file


def one(path: Path, **settings: Any) -> np.ndarray:
    """The pixels of one image, read as for predictions."""
    source = Images(path=str(path), **settings)
    source.prediction = True
    image: np.ndarray = source.read().columns["x"][0]
    return image


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # 90 degrees clockwise
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_as_exif_asks(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    file = saved(tmp_path / f"1.{suffix}", Image.fromarray(RGB[0]), exif=exif, **options)
    assert np.array_equal(one(file), TURNS[orientation](RGB[0]).transpose(2, 0, 1))


def test_palettes_become_colours_and_bits_bytes(tmp_path: Path) -> None:
    index, palette = RANDOM.integers(0, 4, (6, 5)).astype(np.uint8), RANDOM.integers(0, 255, (4, 3)).astype(np.uint8)
    image = Image.fromarray(index).convert("P")
    image.putpalette(palette.tobytes())
    assert np.array_equal(one(saved(tmp_path / "1.gif", image)), palette[index].transpose(2, 0, 1))
    bits = Image.fromarray(index % 2 * np.uint8(255)).convert("1")
    assert np.array_equal(one(saved(tmp_path / "2.png", bits)), index[None] % 2 * 255)


@pytest.mark.parametrize("color", ["auto", "gray", "rgb"])
def test_colours(color: Any, tmp_path: Path) -> None:
    gray = np.repeat(RGB[:, :, :, :1], 3, 3)
    folder = photos(tmp_path / "grey", gray[..., 0])
    assert loaded(Images(path=str(folder), color=color)).columns["x"].shape[1] == (3 if color == "rgb" else 1)
    photos(folder, RGB[:1], ["dog"])
    x = loaded(Images(path=str(folder), color=color)).columns["x"]
    order = [*range(5, 12), *range(5)]
    mixed = np.concatenate([RGB[:1], gray[1:]])[order].transpose(0, 3, 1, 2)
    if color == "gray":  # the luminance of ITU-R 601, as Pillow documents it
        luminance = mixed[:, :1] * 0.299 + mixed[:, 1:2] * 0.587 + mixed[:, 2:] * 0.114
        assert x.shape == luminance.shape and np.abs(x - luminance).max() <= 0.51
    else:
        assert np.array_equal(x, mixed)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_an_alpha_channel_is_left_out_with_a_warning(mode: str, tmp_path: Path) -> None:
    alpha = RANDOM.integers(0, 255, (6, 5, 1)).astype(np.uint8)
    pixels = RGB[0] if mode == "RGBA" else RGB[0, :, :, :1]
    image = Image.fromarray(np.concatenate([pixels, alpha], 2), mode) if mode != "P" else Image.fromarray(RGB[0])
    options = {"transparency": 0} if mode == "P" else {}
    file = saved(tmp_path / "1.png", image.quantize(8) if mode == "P" else image, **options)
    with pytest.warns(UserWarning, match=r"images with an alpha channel, which is left out: 1\.png"):
        found = one(file)
    if mode != "P":
        assert np.array_equal(found, pixels.transpose(2, 0, 1))


def test_a_size_scales_the_shorter_side_and_cuts_the_centre(tmp_path: Path) -> None:
    """Halving by bilinear weights is a weighted mean of neighbours with weights 1 - |d|/2, d in pixels."""
    gray = RANDOM.integers(0, 255, (8, 12)).astype(np.uint8)
    found = one(saved(tmp_path / "1.png", Image.fromarray(gray)), size=[4, 4])

    def weights(first: int, count: int) -> np.ndarray:
        centres, pixels = first + 2 * np.arange(4) + 1.0, np.arange(count) + 0.5
        weight = np.clip(1 - np.abs(centres[:, None] - pixels) / 2, 0, None)
        return weight / weight.sum(1, keepdims=True)

    expected = weights(0, 8) @ gray @ weights(2, 12).T
    assert found.shape == (1, 4, 4) and np.abs(found[0] - expected).max() <= 1
    images = [
        Image.fromarray(RANDOM.integers(0, 255, (*size, 3)).astype(np.uint8)) for size in ((9, 4), (4, 9), (3, 3))
    ]
    for k, image in enumerate(images):
        (tmp_path / "all" / str(k)).mkdir(parents=True)
        image.save(tmp_path / "all" / str(k) / "1.png")
    assert loaded(Images(path=str(tmp_path / "all"), size=[5, 7])).columns["x"].shape == (3, 3, 5, 7)


def tabled(folder: Path, text: str = "", **settings: Any) -> Images:
    """A table of the twelve images, with numbers, names, weights and groups."""
    photos(folder / "files", labels=["all"] * 12)
    rows = [f"files/all/{k:03d}.png,{k / 2},{'ab'[k % 2]},{1 + k % 3},g{k // 4}" for k in range(12)]
    (folder / "t.csv").write_text(text or "file,age,kind,w,g\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return Images(**{"table": str(folder / "t.csv"), "target": "age", **settings})


def test_a_table_gives_numbers_labels_weights_and_groups(tmp_path: Path) -> None:
    source = tabled(tmp_path, weight="w", group="g", stream=True, cache=str(tmp_path))
    table = loaded(source)
    assert np.array_equal(table.columns["x"], RGB.transpose(0, 3, 1, 2)) and source.store is not None
    rows = learn_schema(table, source, "numeric").rows(table, False)
    assert rows.y.tolist() == [k / 2 for k in range(12)] and rows.weight.tolist() == [1 + k % 3 for k in range(12)]
    assert table.columns["id"][3] == "files/all/003.png"
    parts = [set(table.columns["g"][index]) for _, index in source.parts(table).values()]
    assert sum(map(len, parts)) == 3
    new = tabled(tmp_path, "file,age\nfiles/all/000.png,1\n", group="g")
    with pytest.raises(UsageError, match=r"'g' \(data.group\)"):
        new.read()
    new.is_new = True  # of rows that are scored groups may be unknown
    assert loaded(new).num_rows == 1
    tabled(tmp_path)
    named = Images(table=str(tmp_path / "t.csv"), target="kind", id="g", path=str(tmp_path))
    table = loaded(named)
    assert learn_schema(table, named, "labels").labels == ("a", "b") and table.columns["g"][4] == "g1"


def test_a_store_holds_the_same_rows(tmp_path: Path) -> None:
    photos(tmp_path / "p")
    found = []
    for stream in (False, True):
        source = Images(path=str(tmp_path / "p"), stream=stream, cache=str(tmp_path))
        table = loaded(source)
        head = CategoricalHead(2)
        found.append(coded(learn_schema(table, source, "labels"), head, table, np.arange(2, 12), source.store))
    assert isinstance(found[1], StoredRows) and not isinstance(found[0], StoredRows)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_predictions_take_flat_folders_labels_that_are_known_and_blocks(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p")
    training = Images(path=str(folder))
    schema = learn_schema(training.read(), training, "labels")
    for k in range(3):
        (tmp_path / "flat" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB[k]).save(tmp_path / "flat" / ["", "deep"][k == 2] / f"{k}.png")
    flat = schema.reading(Images(path=str(tmp_path / "flat")), prediction=True)
    (block,) = flat.read_blocks()
    assert block.table.columns["id"].tolist() == ["0.png", "1.png", "deep/2.png"]
    assert "label" not in block.table.columns and block.row.tolist() == [0, 1, 2]
    labelled = schema.reading(Images(path=str(folder)), prediction=True).read()
    assert labelled.columns["label"].tolist().count("cat") == 7
    with pytest.raises(UsageError, match=r"sub-folders 'bird' are none of the labels \(data.path\)\n  expected: 'cat'"):
        schema.reading(Images(path=str(photos(tmp_path / "q", RGB[:2], ["bird", "cat"])))).read()
    (tmp_path / "t.csv").write_text("file,label\np/dog/000.png,dog\np/cat/007.png,\n", encoding="utf-8")
    holes = schema.reading(Images(path=str(tmp_path / "t.csv")), prediction=True).read()
    assert schema.rows(holes, False, target_required=False).weight.tolist() == [1, 0]


def test_the_model_says_which_colours_and_sizes_new_images_have(tmp_path: Path) -> None:
    grey = photos(tmp_path / "grey", RGB[..., 0])
    for trained, new, said in (
        (RGB, RGB[..., 0], ""),
        (RGB[..., 0], RGB, "12 images are in colour, and the model takes grey ones\n  cat/005.png, .* and 7 more"),
        (RGB, RGB[:, :5], r"other sizes .*: 12 of 5 x 5\n  cat/.*\n  expected: 6 x 5 pixels, as in training"),
    ):
        source = Images(path=str(photos(tmp_path / "t", trained)))
        schema = learn_schema(source.read(), source, "labels")
        reading = schema.reading(Images(path=str(photos(tmp_path / "n", new))), prediction=True)
        if said:
            with pytest.raises(UsageError, match=said):
                reading.read()
        else:
            assert reading.read().columns["x"].shape == (12, 3, 6, 5)
    both = Images(path=str(photos(tmp_path / "both")), validation_path=str(grey), test_path=str(grey))
    assert {name: len(index) for name, (_, index) in both.parts().items()} == {
        "train": 12,
        "validation": 12,
        "test": 12,
    }
    assert all(part.columns["x"].shape[1] == 3 for part, _ in both.parts().values())


def broken(folder: Path) -> Path:
    """Images of which seven cannot be taken."""
    photos(folder)
    whole = (folder / "dog" / "000.png").read_bytes()
    (folder / "cat" / "a_cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "cat" / "b_text.png").write_text("no image")
    (folder / "cat" / "c_empty.png").write_bytes(b"")
    frames = [Image.fromarray(a) for a in RGB[:3]]
    frames[0].save(folder / "cat" / "d_film.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(folder / "cat" / "e_deep.png")
    Image.new("RGB", (2000, 1000)).save(folder / "cat" / "f_large.png")
    bomb = bytearray((folder / "cat" / "f_large.png").read_bytes())
    bomb[16:24] = (10**5).to_bytes(4) * 2
    (folder / "cat" / "g_bomb.png").write_bytes(bomb)
    return folder


def test_files_that_cannot_be_taken_are_named_or_left_out(tmp_path: Path) -> None:
    folder = broken(tmp_path / "p")
    said = (
        "6 of 19 image files cannot be taken\n  cat/b_text.png is none of BMP, .*; cat/c_empty.png is empty; "
        "cat/d_film.gif has 3 frames; cat/e_deep.png has more than 8 bits .*; cat/f_large.png has 1000 x 2000 pixels, "
        "more than data.max_pixels=1e\\+06; and 1 more\n  expected: whole images of one frame; data.bad=skip "
    )
    with pytest.raises(UsageError, match=said):
        Images(path=str(folder), max_pixels=1e6).read()
    with pytest.warns(UserWarning) as told:
        table = loaded(Images(path=str(folder), max_pixels=1e6, bad="skip"))
    assert [re.sub(".*: ([16] of 19 image files are left out).*", r"\1", str(w.message)) for w in told] == [
        f"{count} of 19 image files are left out" for count in (6, 1)
    ]
    assert "a_cut.png cannot be decoded (" in str(told[1].message)
    assert np.array_equal(table.columns["x"], RGB[[*range(5, 12), *range(5)]].transpose(0, 3, 1, 2))
    with pytest.warns(UserWarning, match="left out"):
        source = Images(path=str(folder), max_pixels=1e6, bad="skip")
        blocks = list(source.read_blocks())
    assert sum(len(block.row) for block in blocks) == 12


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RGB[0]).save(folder / name)
    return folder


def empty(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


BAD: dict[str, tuple[Callable[[Path], Images], str]] = {
    "no path": (lambda _: Images(), r"data.path is not set\n  expected: a folder .*data.table=labels.csv"),
    "nothing there": (
        lambda p: Images(path=str(p / "photo")),
        "photo does not exist .data.path.\n  did you mean .*photos",
    ),
    "empty": (lambda p: Images(path=str(empty(p / "e"))), "e has no image files .*\n  expected: a sub-folder for each"),
    "one sub-folder": (
        lambda p: Images(path=str(touched(p / "o", "a/1.png"))),
        "o has one sub-folder with images, 'a'",
    ),
    "flat": (
        lambda p: Images(path=str(touched(p / "f", "1.png", "2.png"))),
        "image files lie in no sub-folder.*\n  '1.png', '2.png'\n  expected: f/LABEL/1.png, or a table",
    ),
    "sizes": (
        lambda p: Images(path=str(photos(photos(p / "s"), RGB[:2, :4], ["dog", "eel"]))),
        r"different sizes .height x width.: 11 of 6 x 5, 2 of 4 x 5\n  dog/000.png, eel/001.png\n.*data.size",
    ),
    "a cut file": (
        lambda p: Images(path=str(cut(photos(p / "c")))),
        r"1 of 12 image files cannot be taken\n  dog/000.png cannot be decoded \(.*truncated",
    ),
    "nothing left": (
        lambda p: Images(path=str(spoilt(photos(p / "n"))), bad="skip"),
        "12 of 12 image files cannot be taken\n.*\n  expected: images$",
    ),
    "an image": (
        lambda p: Images(path=str(touched(p / "i", "1.png") / "1.png")),
        "1.png is a file .*\n  expected: a fold",
    ),
    "size": (lambda p: Images(path=str(p / "photos"), size=[3]), r"data.size=\[3\]: expected \[height,width\]"),
    "ids": (lambda p: Images(path=str(p / "photos"), vocabulary=3), "data.vocabulary=3 is for ids"),
    "features": (
        lambda p: Images(path=str(p / "photos"), features=["a"]),
        "data.features=.* is for columns of a table",
    ),
    "no table": (lambda p: Images(table=str(p / "t.csv")), r"t.csv does not exist \(data.table\)"),
    "no column of files": (
        lambda p: tabled(p, "name,age\n1.png,3\n"),
        r"lacks these columns\n  'file' \(data.table\)\n  it has 'age'",
    ),
    "no target": (lambda p: tabled(p, target="size"), r"lacks these columns\n  'size' \(data.target\)"),
    "no weight": (lambda p: tabled(p, weight="v"), r"lacks these columns\n  'v' \(data.weight\)"),
    "missing files": (
        lambda p: tabled(p, "file,age\n" + "".join(f"m{k}.png,{k}\n" for k in range(7))),
        r"7 files are missing in .*\n  rows 2, 3, 4, 5, 6 and 2 more: 'm0.png', .*\n  expected: column 'file'",
    ),
    "no number": (
        lambda p: tabled(p, "file,age\nfiles/all/000.png,\n"),
        r"column 'age' \(data.target\) has missing values\n  row 2\n  ",
    ),
}


def cut(folder: Path) -> Path:
    file = folder / "dog" / "000.png"
    file.write_bytes(file.read_bytes()[:60])
    return folder


def spoilt(folder: Path) -> Path:
    for file in folder.rglob("*.png"):
        file.write_bytes(b"\x89PNG\r\n")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_with_place_and_remedy(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    photos(tmp_path / "photos")
    with pytest.raises(UsageError, match=said):
        make(tmp_path).read()


def test_a_folder_that_is_empty_and_files_of_other_kinds_are_warned_of(tmp_path: Path) -> None:
    folder = photos(tmp_path / "p")
    (folder / "eel").mkdir()
    (folder / "dog" / "notes.txt").write_text("barks")
    with pytest.warns(UserWarning) as told:
        assert len(loaded(Images(path=str(folder))).columns["x"]) == 12
    assert "files whose names do not end as those of images are left out: 'dog/notes.txt'" in str(told[0].message)
    assert "sub-folders 'eel' have no image files" in str(told[1].message)


def test_a_photograph_with_previews_is_its_main_picture(tmp_path: Path) -> None:
    first, second = Image.fromarray(RGB[0]), Image.fromarray(RGB[1])
    first.save(tmp_path / "1.jpg", format="MPO", save_all=True, append_images=[second], quality=95)
    first.save(tmp_path / "2.jpg", quality=95)
    assert np.array_equal(one(tmp_path / "1.jpg"), one(tmp_path / "2.jpg"))


def test_text_in_a_file_that_is_odd_does_no_harm(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Raw profile type exif", "no hexadecimal numbers")
    file = saved(tmp_path / "1.png", Image.fromarray(RGB[0]), pnginfo=info)
    assert np.array_equal(one(file), RGB[0].transpose(2, 0, 1))
