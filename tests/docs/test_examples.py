"""The commands and the Python of every page run as they stand there, on small files of the names that they use.

Trainings are short. What is not run is listed with the reason, and a reason that is needed no more is an error. The
first page, the pages on plugins and that of questions have tests of their own beside this one.
"""

import re
import shlex
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from pages import FEW, PAGES, blocks
from PIL import Image

import mlefw
from mlefw.cli import run

HERE = [page for page in PAGES if page.parent == ROOT / "docs" and page.name != "faq.md"]

NOT_RUN = {
    "mlefw train data=shakespeare": "trains on a million characters: minutes",
    "mlefw train data=npz data.path=series.npz": "needs a network of one's own: docs/plugins/model.md, which is run",
    "mlefw train head=gaussian data.target=y head.terms": "a part of a command line, whose data are left out",
    "mlefw train trainer.devices=2": "a part of a command line; tests/distributed trains in two processes",
    "mlefw train data=parquet data.path=s3:": "needs an object store: tests/extras/test_object_store.py has one",
    "mlefw train data=csv data.path=https:": "needs a web server: tests/reading has one",
    "mlefw predict run=RUN data.path=s3:": "needs an object store: tests/extras/test_object_store.py has one",
    "mlefw train -m hydra/launcher=submitit": "needs a cluster",
    "mlefw export run=run quantiles": "needs the extra export: tests/extras/test_onnx.py exports",
    "mlefw train -m hydra/sweeper=search": "needs the extra search: tests/extras/test_search.py runs searches",
}
"""The beginning of each command line that is not run, and why."""

SMALL = {
    "model=transformer": ("model.width=8", "model.layers=1", "model.heads=2", "trainer.max_epochs=1"),
    "model=cnn": ("model.channels=[4]",),
    "data=images": ("trainer.max_epochs=1",),
}
"""Settings that keep a command short, by what stands in it."""


def prepare(folder: Path) -> None:
    """The files that the pages tell of."""
    random = np.random.default_rng(0)
    n = 90
    claims = pd.DataFrame({"age": random.integers(18, 80, n), "region": ["city", "coast", "hills"] * (n // 3)})
    claims = claims.assign(power=random.normal(size=n), year=random.integers(2000, 2020, n), years=0.7)
    claims = claims.assign(claims=random.poisson(0.6, n), cost=random.gamma(2, size=n), n=random.poisson(0.9, n))
    for name in ("claims", "next_year", "new"):
        claims.to_csv(folder / f"{name}.csv", index=False)
    claims.to_parquet(folder / "claims.parquet")
    rows = pd.DataFrame({"x": random.normal(size=n), "y": random.normal(size=n), "z": random.normal(size=n)})
    rows.to_csv(folder / "d.csv", index=False)
    pd.DataFrame({"sold": random.normal(size=n), "price": random.normal(size=n), "day": np.arange(n)[::-1]}).to_csv(
        folder / "sales.csv", index=False
    )
    subject, days = np.repeat([f"s{k}" for k in range(9)], 10), np.tile(np.arange(10), 9)
    effect = np.repeat(random.normal(size=9), 10) * (1 + days)
    sleep = {"reaction": 250 + 10 * days + 9 * effect + random.normal(size=n), "days": days, "subject": subject}
    pd.DataFrame(sleep).to_csv(folder / "sleep.csv", index=False)
    for name in ("book", "other", "new"):
        (folder / f"{name}.txt").write_text(
            "ROMEO: to be, or not to be, that is the question.\n" * 60, encoding="utf-8"
        )
    pixels = (random.random((n, 1, 8, 8)) * 256).astype(np.uint8)
    np.savez(folder / "mnist.npz", x=pixels, y=np.arange(n) % 3)
    for place in ("photos", "other", "new"):
        for k in range(60):
            file = folder / place / ("" if place == "new" else "abc"[k % 3]) / f"{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((random.random((16, 16)) * 256).astype(np.uint8)).save(file)
    table = {"file": [f"photos/{'abc'[k % 3]}/{k}.png" for k in range(60)], "age": random.normal(size=60)}
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)


def lines_of(page: Path) -> list[str]:
    """The command lines of a page; an ellipsis behind a command stands for the settings of the page's first one.

    An empty one ends each block.
    """
    found: list[str] = []
    for info, text in blocks(page):
        found += [""] if found and found[-1] else []
        if info not in ("", "bash"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if not line.startswith("mlefw "):
                continue
            line = re.sub(r"\s+#.*| \[any other setting\]", "", line)
            same = (one for one in found if one.split()[1:2] == line.split()[1:2])
            first = next((one.split(maxsplit=2)[2] for one in same), "")
            found.append(re.sub(r"\s+", " ", line.replace(" … ", f" {first} ")).strip())
    return found


def arguments_of(line: str, last: str) -> list[str]:
    """The words of a command line, with the settings that keep it short; `last` is the directory of its run."""
    line = line.replace("data.cache=/scratch", "data.cache=.")
    words = [re.sub(r"=(?:outputs/…|multirun/…|RUN)$", f"={last}", word) for word in shlex.split(line)[1:]]
    if words[0] != "train" or any(word.startswith("experiment=") for word in words):
        return words
    more = [setting for what, settings in SMALL.items() if what in line for setting in settings]
    given = {word.partition("=")[0] for word in words}
    few = [setting for setting in FEW if "resume=" not in line and setting.partition("=")[0] not in given]
    kept = {setting.partition("=")[0]: setting for setting in [*few, *more]}
    return [*words, *kept.values()]


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in HERE if lines_of(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    last = ""  # the first run of the block
    for name in ("one", "another", "third") if page.stem == "ensembles" else ():
        assert told(["train", "data=csv", "data.path=claims.csv", "data.target=claims", f"run_dir={name}", *FEW]) == 0
    for number, line in enumerate(lines_of(page)):
        last = last if line else ""
        if not line or any(line.startswith(start) for start in NOT_RUN):
            continue
        words = arguments_of(line, last)
        makes_run = words[0] in ("train", "baseline") and not any("resume=" in word for word in words)
        if makes_run and not any(word.startswith("run_dir=") for word in words):
            words.append(f"run_dir=run_{number}")
        if makes_run and not last:
            last = next(word for word in words if word.startswith("run_dir=")).partition("=")[2]
        elif words[0] in ("evaluate", "predict") and any(word.startswith(("output=", "plots=")) for word in words):
            words.append("overwrite=true")
        assert told(words) == 0, line


def told(words: list[str]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(words)


def test_no_reason_is_left_over() -> None:
    lines = [line for page in HERE for line in lines_of(page) if line]
    assert len(lines) > 40
    for start, reason in NOT_RUN.items():
        assert reason and any(line.startswith(start) for line in lines), start
    assert sum(any(line.startswith(start) for start in NOT_RUN) for line in lines) < len(lines) / 3


def scope_of(page: str) -> dict[str, Any]:
    """The names that the Python of a page takes as given."""
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 2))
    frame = pd.DataFrame({"x0": x[:, 0], "x1": x[:, 1], "claims": random.poisson(1, 80), "years": 0.5})
    scope: dict[str, Any] = {"mlefw": mlefw, "x": x, "y": random.normal(size=80), "frame": frame}
    if page == "data":
        images, labels = random.normal(size=(80, 1, 8, 8)).astype(np.float32), np.arange(80) % 3
        ids = random.integers(0, 50, (80, 6))
        pairs = torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
        scope |= {"images": images, "labels": labels, "w": np.ones(80), "ids": ids, "following": ids, "dataset": pairs}
        scope |= {"new": images, "known": labels, "x": images[:, 0]}
    return scope


def short(*given: Any, **named: Any) -> Any:
    """`mlefw.fit` with few epochs."""
    text = " ".join(one for one in given if isinstance(one, str))
    more = [setting for what, settings in SMALL.items() if what in text for setting in settings]
    few = [one for one in FEW if not (one.startswith("trainer.max_epochs") and any("epochs" in m for m in more))]
    data, target, *rest = [*given, None][: max(2, len(given))]
    return mlefw.fit(data, target, *rest, *few, *more, **named)


ELSEWHERE = {"export": "needs the extra export: tests/extras/test_onnx.py runs it"}
"""Pages whose Python another test runs, and why."""

PYTHON = [page for page in HERE if any(info == "python" for info, _ in blocks(page)) and page.stem not in ELSEWHERE]


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if page.stem == "statistics" else pytest.mark.slow) for page in PYTHON],
    ids=lambda page: page.stem,
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    scope = scope_of(page.stem)
    scope["fit"] = short
    for info, text in blocks(page):
        if info == "python":
            code = (
                text.replace("mlefw.fit(", "fit(")
                .replace("from mlefw.fit import fit\n", "")
                .replace("import mlefw\n", "")
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(code, scope)
