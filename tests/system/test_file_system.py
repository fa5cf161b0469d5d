"""A file system that lacks an operation costs no run: each is refused in turn, and all is written."""

import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import summary_of
from interrupted import train
from pyarrow import parquet

from mlefw.cli import run
from mlefw.errors import StorageError
from mlefw.rows.stored import Store
from mlefw.run.directory import SUPERSEDED
from mlefw.sweep.record import supersede
from mlefw.system import file_system
from mlefw.system.atomic import write_text

RUN = ("data.target=y", "model=linear", "trainer.max_epochs=2", "report=false", "plots=false", "logger=none")


def is_folder(descriptor: int, *_: Any) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def is_nameless(path: Any, flags: int, *_: Any, **__: Any) -> bool:
    return flags & os.O_TMPFILE == os.O_TMPFILE


REFUSED: dict[str, tuple[Any, str, int, Callable[..., bool], str]] = {
    "sync folders": (os, "fsync", errno.EINVAL, is_folder, "sync what"),
    "sync": (os, "fsync", errno.ENOSYS, lambda *_: True, "sync what"),
    "lock": (fcntl, "flock", errno.ENOLCK, lambda *_: True, "lock folders"),
    "lock on NFS": (fcntl, "flock", errno.EBADF, lambda *_: True, "lock folders"),
    "permissions": (os, "chmod", errno.EPERM, lambda *_, **__: True, "change permissions"),
    "rename": (os, "replace", errno.EPERM, lambda *_, **__: True, "rename files"),
    "nameless files": (os, "open", errno.EOPNOTSUPP, is_nameless, ""),
    "removal": (os, "unlink", errno.EBUSY, lambda *_, **__: True, ""),
    "room ahead": (os, "posix_fallocate", errno.EOPNOTSUPP, lambda *_: True, ""),
    "mapping": (mmap, "mmap", errno.ENODEV, lambda *_: True, "map files"),
}


@pytest.fixture(autouse=True)
def _anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(file_system, "_warned", set())


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place, function, number, applies, _ = REFUSED[name]
    original = getattr(place, function)

    def refusing(*arguments: Any, **more: Any) -> Any:
        if applies(*arguments, **more):
            raise OSError(number, os.strerror(number))
        return original(*arguments, **more)

    monkeypatch.setattr(place, function, refusing)


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_its_continuation_a_sweep_and_predictions_are_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    parquet.write_table(pa.table({"x": random.normal(size=80), "y": random.normal(size=80)}), "d.parquet")
    source = ("data=parquet", "data.path=d.parquet", "data.stream=true", f"data.cache={tmp_path}")
    with monkeypatch.context() as patch:
        refuse(patch, name)
        assert train(*source, *RUN, "run_dir=r") == 0, capsys.readouterr().err
        told = capsys.readouterr().err
        assert told.count("cannot") == (1 if REFUSED[name][4] else told.count("remove")), told
        assert REFUSED[name][4] in told
        assert train("resume=r", "trainer.max_epochs=3") == 0, capsys.readouterr().err
        assert run(["predict", "run=r", "data.path=d.parquet", "output=p.csv"]) == 0, capsys.readouterr().err
        if name in ("sync", "lock", "rename"):
            assert train("-m", *source, *RUN, "seed=0,1", "run_dir=s") == 0
    assert summary_of(tmp_path / "r")["num_epochs"] == 3
    assert len((tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()) == 81
    assert run(["evaluate", "run=r", "data.path=d.parquet"]) == 0


def test_a_failed_job_is_put_aside_where_folders_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "000_a").mkdir()
    (tmp_path / "000_a" / "file").touch()

    def refusing(*_: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "rename", refusing)
    supersede(tmp_path, tmp_path / "000_a")
    assert (tmp_path / SUPERSEDED / "000_a.1" / "file").is_file()
    assert not (tmp_path / "000_a").exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_or_broken_disk_is_no_refusal(
    number: int, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("before", encoding="utf-8")

    def broken(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, broken)
    with pytest.raises(StorageError, match="file could not be written"):
        write_text(tmp_path / "file", "after")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["nameless files", "removal", "room ahead", "mapping"])
@pytest.mark.filterwarnings("ignore:the file system of")
def test_rows_beyond_memory_are_the_same(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [np.arange(5.0), np.arange(3.0)]
    with monkeypatch.context() as patch:
        refuse(patch, name)
        store = Store(str(tmp_path))
        zeros, kept = store.array((2, 3)), store.keep(pieces)
        zeros[1, 2] = 7
        store.release()
    assert zeros.tolist() == [[0, 0, 0], [0, 0, 7]]
    assert kept.tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert name == "removal" or not list(tmp_path.iterdir())
