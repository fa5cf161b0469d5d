"""Nothing is written outside a run directory: links below it are replaced, never followed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import summary_of
from interrupted import train

from mlefw.cli import run
from mlefw.system import own_folder
from mlefw.system.own_folder import mark_own, replace_links

SETTINGS = ("model=linear", "data=synthetic", "data.num_rows=80", "early_stopping.patience=null")
FOLDERS = ("plots", "tensorboard")
FILES = ("report.html", "row_nll.npz", "baseline.json", "checkpoints/best.ckpt", "tensorboard/hparams.yaml")
READ = ("checkpoints", "config.yaml", "metrics.csv", "summary.json")
"""What is read to go on is to be there itself."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "r"
    assert train(*SETTINGS, "trainer.max_epochs=1", f"run_dir={folder}") == 0
    return folder


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_folder, "_own", set())
    Path("outside").mkdir()
    yield


def content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def swap(path: Path, whole: bool = True) -> Path:
    """Put a link to a copy outside (or to a file that is not there) in the place of a path."""
    outside = Path("outside").absolute() / path.name
    if whole:
        path.rename(outside)
    else:
        path.unlink()
    path.symlink_to(outside)
    return outside


def test_a_resumed_run_replaces_every_link_that_it_would_write_through(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, "r")
    for name in FILES:
        swap(Path("r") / name, whole=name != "tensorboard/hparams.yaml")
    for name in FOLDERS:
        swap(Path("r") / name)
    Path("mine").symlink_to("r")
    Path("r/notes").symlink_to(tmp_path / "outside")
    before = content(Path("outside"))
    assert train("resume=mine", "trainer.max_epochs=2") == 0
    assert content(Path("outside")) == before
    left = [path for path in Path("r").rglob("*") if path.is_symlink()]
    assert left == [Path("r/notes")], "what a run does not write to is nobody's but the user's"
    assert summary_of(Path("r"))["num_epochs"] == 2
    for name in ("plots/gap.png", *FILES):
        assert Path("r", name).is_file(), name
    assert list(Path("r/tensorboard").glob("events*"))


@pytest.mark.parametrize("name", READ)
def test_a_run_whose_state_lies_elsewhere_is_refused(
    trained: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained, "r")
    swap(Path("r") / name)
    before = content(Path())
    assert train("resume=r", "trainer.max_epochs=2") == 2
    assert f"{name} is a link" in capsys.readouterr().err
    assert content(Path()) == before


def test_what_is_written_of_a_run_stays_in_it(trained: Path) -> None:
    shutil.copytree(trained, "r")
    swap(Path("r/plots"))
    before = content(Path("outside"))
    assert run(["evaluate", "run=r", "plots=r/plots/test", "output=r/plots/e.json"]) == 0
    assert run(["evaluate", "run=r", "plots=r/plots", "overwrite=true"]) == 0
    assert not Path("r/plots").is_symlink()
    assert len(list(Path("r/plots").glob("*.png"))) > 1
    Path("new.csv").write_text("x0,x1,x2,x3,x4\n" + "0,1,2,3,4\n" * 3, encoding="utf-8")
    Path("r/plots/p.csv").symlink_to(Path("outside/p.csv").absolute())
    assert run(["predict", "run=r", "data.path=new.csv", "output=r/plots/p.csv"]) == 0
    assert not Path("r/plots/p.csv").is_symlink()
    assert content(Path("outside")) == before


def test_a_sweep_replaces_links_in_its_directory(trained: Path) -> None:
    job = Path("s/000_seed-0")
    (Path("s")).mkdir()
    Path("s/sweep.json").write_text('{"jobs": []}', encoding="utf-8")
    shutil.copytree(trained, "s/000_seed-0")
    (job / "summary.json").write_text('{"status": "failed"}', encoding="utf-8")
    for name in ("superseded", "sweep.csv", "000_seed-0.log", "001_seed-1.log"):
        Path("s", name).symlink_to(Path("outside", name).absolute())
    Path("outside/superseded").mkdir()
    before = content(Path("outside"))
    quick = (*SETTINGS, "trainer.max_epochs=1", "logger=none", "hydra.launcher.jobs=1")
    assert train("-m", *quick, "seed=0,1", "run_dir=s") == 0
    assert content(Path("outside")) == before
    assert not any(path.is_symlink() for path in Path("s").iterdir())


def test_only_links_below_an_own_folder_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "outside" / "deep").mkdir()
    for name in ("mine", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").symlink_to(tmp_path / "outside")
    mark_own(tmp_path / "mine")
    for name, is_link in (("mine", False), ("other", True)):
        path = tmp_path / name / "a" / "deep" / "file"
        assert replace_links(path) == path
        assert (tmp_path / name / "a").is_symlink() == is_link
    assert (tmp_path / "mine" / "a").is_dir()
    assert (tmp_path / "outside" / "deep").is_dir()
    mark_own(Path())
    replace_links(Path("mine/../other/a/x"))
    assert not Path("other/a").is_symlink()
