"""Reports, pictures and logs of runs: complete, self-contained, inert, and never the reason that a training ends."""

import errno
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, summary_of
from pyarrow import csv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from mlefw.callback import board
from mlefw.callback.event_records import Records
from mlefw.callback.figures import margins
from mlefw.cli import run
from mlefw.report.forecast import MAX_ROWS, Sample
from mlefw.rows.rows import Rows

# Runs in this process meet the deprecations of other people's code, too.
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

VOID = {"meta", "img", "br", "link"}
TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "header",
    "h1",
    "h2",
    "h3",
    "p",
    "section",
    "strong",
    "ul",
    "li",
}
TAGS |= {"div", "table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "img", "details", "summary", "pre"}
TAGS |= {"footer"}
NUMBERS = {"learning_curves", "gap", "pit", "coverage", "predictions", "residuals"}
EVIL = ("<script>alert(1)</script>", "a\" onload='x", "${7*7}{{7*7}}")
TARGET = "count </td><img src=http://x.test/a>"


class Reader(HTMLParser):
    """Collects tags, text and attributes, and notices an element that is not closed where it was opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check_page(page: str) -> Reader:
    """The page is well formed, holds known elements alone, and asks nothing of a network."""
    seen = Reader(page)
    assert seen.open == []
    assert seen.tags <= TAGS
    for tag, name, value in seen.attributes:
        assert not name.startswith("on")
        assert name not in ("href", "action", "srcset", "background")
        if name == "src":
            assert tag == "img"
            assert value.startswith("data:image/png;base64,")
    style = page[page.index("<style>") : page.index("</style>")]
    assert not re.search(r"url\(|@import|expression\(", style)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert ("meta", "content", policy) in seen.attributes
    return seen


def hostile(path: Path) -> Path:
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 3))
    y = random.poisson(np.exp(0.4 * x[:, 0]))
    lines = [",".join('"' + name.replace('"', '""') + '"' for name in (*EVIL, TARGET))]
    lines += [",".join(map(repr, map(float, row))) + f",{count}" for row, count in zip(x, y, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_names_from_data_are_inert_in_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hostile(tmp_path / "d.csv")
    code = run(
        [
            *("train", "head=poisson", "model=linear", "data=csv", "data.path=d.csv", f"data.target='{TARGET}'"),
            *("trainer.max_epochs=3", "prior=l2", "data.test_fraction=0", "logger=none", "run_dir=r"),
        ]
    )
    assert code == 0
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    seen = check_page(page)
    for name in EVIL:
        assert name in seen.text
    assert any(TARGET in text for text in seen.text)
    assert "Exact linear MAP" in seen.text
    assert "Exact linear MLE" in seen.text
    summary = summary_of(tmp_path / "r")
    nats = f"{summary['metrics']['train']['nll_nats']:.4f}"
    assert nats in seen.text
    assert len([1 for tag, name, _ in seen.attributes if (tag, name) == ("img", "src")]) == len(
        list((tmp_path / "r" / "plots").glob("*.png"))
    )


@pytest.mark.parametrize(
    ("head", "model", "wanted"),
    [
        ("gaussian", "mlp", NUMBERS),
        ("heteroscedastic", "mlp", NUMBERS),
        ("laplace", "linear", NUMBERS | {"coefficient_path"}),
        ("poisson", "linear", NUMBERS | {"coefficient_path"}),
        ("bernoulli", "linear", {"learning_curves", "gap", "reliability", "coefficient_path"}),
        ("categorical", "linear", {"learning_curves", "gap", "reliability", "coefficient_path"}),
    ],
)
def test_every_head_has_its_pictures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    table: Callable[..., Path],
    head: str,
    model: str,
    wanted: set[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    path = table("gaussian" if head == "heteroscedastic" else head)
    code = run(
        [
            *("train", f"head={head}", f"model={model}", "data=csv", f"data.path={path}", "data.target=y"),
            *("trainer.max_epochs=3", "run_dir=r"),
        ]
    )
    assert code == 0
    run_dir = tmp_path / "r"
    assert {file.stem for file in (run_dir / "plots").iterdir()} == wanted
    for file in (run_dir / "plots").iterdir():
        assert file.read_bytes().startswith(b"\x89PNG")
    check_page((run_dir / "report.html").read_text(encoding="utf-8"))
    sizes = {"tensors": 0, "images": 0}
    events = EventAccumulator(str(run_dir / "tensorboard"), size_guidance=sizes).Reload()
    tags = events.Tags()
    assert wanted <= set(tags["images"])
    for name in wanted:
        image = events.Images(name)[-1].encoded_image_string
        assert image == (run_dir / "plots" / f"{name}.png").read_bytes()
    assert any(tag.startswith("weights/") for tag in tags["histograms"])
    assert ("precision_recall" in tags["tensors"]) == (head == "bernoulli")
    assert ("pit" in tags["histograms"]) == ("pit" in wanted)
    scalars = set(tags["scalars"])
    assert {"train/gap_nats", "validation/gap_nats"} <= scalars
    assert any(tag.startswith("margin/validation/") for tag in scalars)


def test_pictures_come_at_powers_of_two_and_within_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Callable[..., Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["train", "data=csv", f"data.path={table()}", "data.target=y", "batch=full", "trainer.max_epochs=6"]
    few += ["callback=none", "early_stopping.patience=null"]
    for share, steps in ((1e9, [1, 2, 4, 6]), (0.0, [6])):
        monkeypatch.setattr(board, "_SHARE", share)
        assert run([*few, f"run_dir=r{len(steps)}"]) == 0
        sizes = {"tensors": 0, "images": 0, "histograms": 0}
        events = EventAccumulator(str(tmp_path / f"r{len(steps)}" / "tensorboard"), size_guidance=sizes).Reload()
        for seen in (
            events.Images("pit"),
            events.Histograms("pit"),
            events.Histograms("weights/model.model.last.bias"),
        ):
            assert [event.step for event in seen] == steps
        layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
        charts = [chart for category in layout.category for chart in category.chart]
        scalars = events.Tags()["scalars"]
        assert len(charts) == 5
        for chart in charts:
            pattern = chart.multiline.tag[0]
            assert [tag for tag in scalars if re.match(pattern, tag)], chart.title


def test_without_a_report_there_are_curves_alone(mlefw: Run, tmp_path: Path) -> None:
    done = mlefw("train", "trainer.max_epochs=2", "report=false", "logger=none", "run_dir=r")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "r" / "report.html").exists()
    assert {file.stem for file in (tmp_path / "r" / "plots").iterdir()} == {"learning_curves", "gap"}


def test_a_comparison_is_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        few = ["trainer.max_epochs=2", f"model.hidden=[{4 + seed}]", "report=false", "logger=none"]
        assert run(["train", *few, f"run_dir='s/<b>{seed}'"]) == 0
    (tmp_path / "s" / "failed").mkdir()
    (tmp_path / "s" / "failed" / "summary.json").write_text('{"status": "failed", "seed": 2}', encoding="utf-8")
    assert run(["compare", "runs=s", "report=c.html"]) == 0
    page = (tmp_path / "c.html").read_text(encoding="utf-8")
    seen = check_page(page)
    assert {"<b>0", "<b>1", "failed"} <= set(seen.text)
    assert "2 finished of 3 runs" in seen.text
    assert run(["compare", "runs=s", "report=c.html"]) == 2
    assert run(["compare", "runs=s", "report=nowhere/c.html"]) == 2
    assert run(["compare", "runs=s", "report=c.html", "overwrite=true"]) == 0


def test_a_log_that_cannot_be_written_is_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    count, write = 0, Records.add_event

    def full(self: Records, event: Any) -> None:
        nonlocal count
        count += 1
        if count > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, event)

    monkeypatch.setattr(Records, "add_event", full)
    assert run(["train", "trainer.max_epochs=30", "model.hidden=[4]", "run_dir=r"]) == 0
    message = capfd.readouterr().err
    assert message.count("No space left on device") == 1
    assert len(message.splitlines()) == 1
    summary = summary_of(tmp_path / "r")
    assert summary["status"] == "finished"
    assert any("No space left" in text for text in summary["warnings"])
    assert len(csv.read_csv(tmp_path / "r" / "metrics.csv")) == 31


def test_a_deleted_log_folder_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flush = Records.flush

    def gone(self: Records) -> None:
        shutil.rmtree(tmp_path / "r" / "tensorboard", ignore_errors=True)
        flush(self)

    monkeypatch.setattr(Records, "flush", gone)
    assert run(["train", "trainer.max_epochs=5", "model.hidden=[4]", "run_dir=r"]) == 0
    message = capfd.readouterr().err
    assert message.count("the log could not be written (No such file or directory)") == 1
    assert "Traceback" not in message
    assert summary_of(tmp_path / "r")["status"] == "finished"


def test_plots_that_cannot_be_written_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlefw.run import exhibit

    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(exhibit, "write_bytes", full)
    monkeypatch.chdir(tmp_path)
    assert run(["train", "trainer.max_epochs=2", "model.hidden=[4]", "run_dir=r", "logger=none"]) == 0
    assert "not every picture could be written" in capfd.readouterr().err
    assert summary_of(tmp_path / "r")["status"] == "finished"
    assert (tmp_path / "r" / "report.html").exists()


def test_rows_that_pictures_show() -> None:
    def rows(count: int, weight: float = 1.0) -> Rows:
        import torch

        column = torch.arange(count, dtype=torch.float64)
        return Rows(column.unsqueeze(1), column, torch.full_like(column, weight), torch.zeros_like(column))

    sample = Sample.of({"train": rows(3), "validation": rows(200_000), "test": rows(5)}, "y", None)
    assert sample.description == "validation rows (n = 50,000 of 200,000)"
    assert len(sample.index) == MAX_ROWS
    assert (sample.rows.y[0], sample.rows.y[-1]) == (0, 199_999)
    assert Sample.of({"train": rows(3), "test": rows(5)}, "y", None).description == "test rows (n = 5)"
    assert Sample.of({"train": rows(3, 2.0)}, "y", None).description == "training rows (Σw = 6)"


def test_margins_are_zero_for_a_calibrated_model() -> None:
    figures = {"coverage_90": 0.84, "coverage_50": 0.5, "ece_15": 0.05, "ece_null": 0.06, "nll_nats": 1.0}
    assert margins(figures) == pytest.approx({"coverage_90": -0.06, "coverage_50": 0.0, "ece_15": -0.01})
