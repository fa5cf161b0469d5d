"""A path means what it says, whatever signs it has, wherever it is given; job directories need no quotes anywhere."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from interrupted import QUIET, train
from omegaconf import OmegaConf

from mlefw.cli import run
from mlefw.configuration.path_setting import quoted, several, with_quoted_path
from mlefw.sweep.record import Job, attempts, folder_name
from mlefw.trained import load

ODD = (
    *("a b", "it's", 'we "said"', "[x]", "(x)", "ü=1,2", "m$HOME", "p${seed}q", r"\${x}", "{z}", "-dash", "--", "~a"),
    *("new\nline", "a#b", "'q'", "back\\slash", "trailing\\", "null", "1.5", "%20", "a:b", "*", "epoch=1, [a] (b)"),
)


SOME = (
    "it's [x]",
    "[x]",
    "ü=1,2 {z}",
    "m$HOME p${seed}q",
    "--",
    "-dash",
    "~new\nline#",
    "'q'",
    "back\\slash\\",
    "null",
)
"""All signs of these, in as many runs as a test has time for."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    rows = "\n".join(f"{k % 7},{k % 7 + k * k % 5}" for k in range(60))
    (folder / "d.csv").write_text(f"a,y\n{rows}\n", encoding="utf-8")
    source = ("data=csv", f"data.path={folder / 'd.csv'}", "data.target=y", "model=linear", "trainer.max_epochs=1")
    assert train(*source, *QUIET, "plots=false", f"run_dir={folder / 'r'}") == 0
    return folder


@pytest.mark.parametrize("name", ODD)
def test_hydra_reads_a_quoted_path_as_it_is(name: str) -> None:
    override = OverridesParser.create().parse_override(f"k={quoted(name)}")
    config = OmegaConf.create()
    OmegaConf.update(config, "k", override.value(), force_add=True)
    assert config.k == name


@pytest.mark.parametrize("name", SOME)
def test_every_command_takes_any_path(
    name: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained / "r", name)
    shutil.copy(trained / "d.csv", f"{name}.csv")
    words = "./null" if name == "null" else name
    for command in (
        ("evaluate", f"run={words}", f"data.path={name}.csv"),
        ("predict", f"run={words}", f"data.path={name}.csv", f"output={Path(name) / 'p.csv'}"),
        ("train", f"resume={name}", "trainer.max_epochs=2"),
        ("compare", "--", f"./{name}" if name == "--" else name, f"report={name}.html"),
        ("compare", f"runs={name},{name}"),
    ):
        code = train(*command[1:]) if command[0] == "train" else run(command)
        assert code == 0, (command, capsys.readouterr().err)
    assert Path(name, "p.csv").is_file()
    assert Path(f"{name}.html").is_file()
    assert load(name).features == ["a"]


@pytest.mark.parametrize("name", ["it's ü=1,2", "-new\nline"])
def test_a_run_is_written_where_it_was_told(name: str, trained: Path, tmp_path: Path) -> None:
    source = ("data=csv", f"data.path={trained / 'd.csv'}", "data.target=y", "model=linear", "trainer.max_epochs=1")
    assert train(*source, *QUIET, "plots=false", f"run_dir={tmp_path / name}") == 0
    assert (tmp_path / name / "summary.json").is_file()


def test_what_has_a_meaning_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for item in (
        "run_dir=null",
        "run_dir='a b'",
        "run_dir=out/${seed}",
        "plots=true",
        "model.hidden=[4,4]",
        "seed=0,1",
    ):
        assert with_quoted_path(item) == item
    assert with_quoted_path("data.path=a.csv,b.csv", sweeps=True) == "data.path=a.csv,b.csv"
    Path("a.csv,b.csv").touch()
    assert with_quoted_path("data.path=a.csv,b.csv", sweeps=True) == "data.path='a.csv,b.csv'"
    assert several("[a,b,c]") == ["a", "b", "c"]
    Path("a,b").mkdir()
    assert several("a,b,c") == ["a,b", "c"]


def test_directories_of_jobs_need_no_quotes_and_map_to_settings(tmp_path: Path, trained: Path) -> None:
    settings = ["head=gaussian,laplace", "optimizer.betas=[0.9,0.99],[0.8,0.99]", f"run_dir={tmp_path / 's'}"]
    source = ("data=csv", f"data.path={trained / 'd.csv'}", "data.target=y", "model=linear", "trainer.max_epochs=1")
    assert train("-m", *source, *QUIET[:1], *settings) == 0
    jobs = json.loads((tmp_path / "s" / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    assert [job["run_dir"][:4] for job in jobs] == ["000_", "001_", "002_", "003_"]
    for job in jobs:
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", job["run_dir"])
        assert shlex.quote(job["run_dir"]) == job["run_dir"]
        assert f"head={job['overrides'][0].split('=')[1]}" in job["overrides"]


def test_names_of_other_settings_differ_and_old_directories_are_found(tmp_path: Path) -> None:
    values = ["a=b", "a-b", "a b", "a,b", "[a]", "(a)", "x" * 200, "x" * 201, "-1", "1"]
    names = [folder_name(0, [f"key={value}"]) for value in values]
    assert len(set(names)) == len(values)
    assert max(map(len, names)) < 80
    old = tmp_path / "007_head=gaussian,model.hidden=_4,4_"
    old.mkdir()
    assert attempts(tmp_path, Job(0, ["head=gaussian", "model.hidden=[4,4]"], tmp_path)) == [old]
