"""Checkpoint files are whole, checked, and never run anything."""

import errno
import io
import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from mlefw.callback.resume import objective_state
from mlefw.errors import StorageError, UsageError
from mlefw.run import archive
from mlefw.run.archive import read, write
from mlefw.system.atomic import temporary_files

CONTENT: dict[str, Any] = {
    "state_dict": {"objective.w": torch.arange(600, dtype=torch.float64)},
    "mlefw": {"version": archive.SCHEMA_VERSION, "written_by": "0.1.0"},
}


class Harmful:
    """What unpickling it would do, were it done."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("PWNED"),))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def resaved(**changes: Any) -> None:
    torch.save({**CONTENT, **changes}, "a.ckpt")


def refusal(name: str = "a.ckpt") -> str:
    with pytest.raises(UsageError) as caught:
        read(Path(name))
    assert not Path("PWNED").exists()
    return str(caught.value)


def test_a_checkpoint_reads_back_and_is_one_of_torch() -> None:
    write(Path("a.ckpt"), CONTENT)
    assert torch.equal(objective_state(read(Path("a.ckpt")))["w"], CONTENT["state_dict"]["objective.w"])
    plain = torch.load("a.ckpt", weights_only=True)
    assert torch.equal(plain["state_dict"]["objective.w"], CONTENT["state_dict"]["objective.w"])


def test_every_flipped_bit_is_noticed() -> None:
    write(Path("a.ckpt"), CONTENT)
    whole = Path("a.ckpt").read_bytes()
    draw = random.Random(0)
    # All of the directory and the digest at the end, and some of what is before.
    places = [*range(len(whole) - 200, len(whole)), *draw.sample(range(len(whole)), 300)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        Path("a.ckpt").write_bytes(damaged)
        assert "damaged" in refusal(), place


def test_every_truncation_is_noticed_and_the_whole_one_named() -> None:
    write(Path("best.ckpt"), CONTENT)
    whole = Path("best.ckpt").read_bytes()
    for size in (0, 1, 50, len(whole) // 10, len(whole) // 2, len(whole) - 77, len(whole) - 1):
        Path("last.ckpt").write_bytes(whole[:size])
        message = refusal("last.ckpt")
        assert "damaged" in message
        assert str(Path("best.ckpt").absolute()) in message


@pytest.mark.parametrize("force", ["0", "1"])
def test_code_is_never_run(monkeypatch: pytest.MonkeyPatch, force: str) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    resaved(x=Harmful())
    assert "holds code" in refusal()
    write(Path("a.ckpt"), {**CONTENT, "x": Harmful()})
    assert "holds code" in refusal()


def test_foreign_and_older_files_are_refused() -> None:
    Path("a.ckpt").write_text("hello", encoding="utf-8")
    assert "not a checkpoint" in refusal()
    Path("folder.ckpt").mkdir()
    assert "no checkpoint" in refusal("folder.ckpt")
    assert "no checkpoint" in refusal("none.ckpt")
    torch.save({"pytorch-lightning_version": "2.6.6", "state_dict": {"a.b": torch.zeros(3)}, "epoch": 1}, "a.ckpt")
    assert "not a checkpoint of mlefw" in refusal()
    torch.save([1, 2], "a.ckpt")
    assert "not a checkpoint of mlefw" in refusal()
    resaved(mlefw={"version": 1})
    message = refusal()
    assert "checkpoint version 1" in message
    assert "train anew" in message
    resaved()
    assert "lacks the digest" in refusal()
    with zipfile.ZipFile("a.ckpt", "w") as file:
        file.writestr("notes.txt", "no tensors")
    assert "damaged" in refusal()


def test_what_would_grow_in_memory_is_refused() -> None:
    resaved()
    with zipfile.ZipFile("a.ckpt") as source, zipfile.ZipFile("b.ckpt", "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.namelist():
            target.writestr(member, source.read(member))
        target.writestr("archive/data/9", bytes(50_000_000))
    assert "compressed" in refusal("b.ckpt")
    resaved(state_dict={"objective.w": torch.zeros(1).expand(10**12)})
    assert "objective.w claims to be larger" in refusal()


def test_a_disk_that_fills_up_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("a.ckpt"), CONTENT)
    before = Path("a.ckpt").read_bytes()

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() + len(data) > 3000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(data) or 0

    monkeypatch.setattr(os, "fdopen", lambda descriptor, mode: Full(descriptor, mode))
    with pytest.raises(StorageError, match="No space left on device"):
        write(Path("a.ckpt"), {**CONTENT, "more": torch.ones(9)})
    assert Path("a.ckpt").read_bytes() == before
    assert temporary_files(Path()) == []


def test_leftovers_are_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for name in (".last.ckpt.ab_1.tmp", "checkpoints/.best.ckpt.x.tmp", "mine.tmp", ".hidden", "notes.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    (tmp_path / ".link.tmp").symlink_to(tmp_path / "notes.txt")
    assert {path.name for path in temporary_files(tmp_path)} == {".last.ckpt.ab_1.tmp", ".best.ckpt.x.tmp"}
