"""Training in two processes of one machine: the numbers of one process, files from the first alone, ends in time."""

import os
import signal
import sys
from unittest.mock import Mock

import pytest
import torch
from conftest import summary_of
from interrupted import TEXT, write_text

from mlefw.callback.short_steps import WarnOfShortSteps
from mlefw.command.outermost import guarded
from mlefw.distributed import ranks, spawn
from mlefw.distributed.spawn import run
from mlefw.errors import LostRankError, MlefwError
from mlefw.system.signals import deferred, handled, is_pending, raise_pending
from mlefw.training.module import LikelihoodModule

SMALL = ("trainer.precision=64-true", "trainer.max_epochs=4", "report=false", "plots=false", "model.hidden=[5]")
TWO = ("trainer.devices=2", "trainer.strategy=ddp")


def leaves(node, name=""):
    """The numbers and words of nested mappings and lists, by dotted name."""
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        return {full: leaf for key, value in node.items() for full, leaf in leaves(value, f"{name}.{key}").items()}
    return {name: node}


def assert_same(one, two):
    """Equal summaries but for what tells of time and of devices."""
    one, two = (
        {name: leaf for name, leaf in leaves(summary_of(run_dir)).items() if ".time" not in name and "warn" not in name}
        for run_dir in (one, two)
    )
    assert one.keys() == two.keys()
    for name, value in one.items():
        expected = pytest.approx(value, rel=1e-8, abs=1e-9) if isinstance(value, float) else value
        assert two[name] == expected, name


def files(run_dir):
    return sorted(path.name.split(".")[0] for path in run_dir.rglob("*") if path.is_file())


def test_a_sweep_of_runs_in_two_processes_has_the_numbers_of_one(mlefw, tmp_path):
    """Of 97 training rows in batches of 32 the last has one: nothing is left for the second process."""
    done = mlefw(
        *("train", "-m", "run_dir=s", "trainer.strategy=ddp", "trainer.devices=1,2", "batch=mini,replacement,full"),
        *("prior=l2", "data=synthetic", "data.num_rows=161", "early_stopping.patience=1", "optimizer.lr=0.05", *SMALL),
    )
    assert done.returncode == 0, done.stderr
    jobs = {path.name.split("_", 1)[1]: path for path in (tmp_path / "s").iterdir() if path.is_dir()}
    assert summary_of(jobs["trainer.devices-1_batch-mini"])["num_rows"]["train"] % 32 == 1
    for batch in ("mini", "replacement", "full"):
        one, two = (jobs[f"trainer.devices-{count}_batch-{batch}"] for count in (1, 2))
        assert_same(one, two)
        assert files(one) == files(two)


@pytest.mark.slow
def test_a_text_in_two_processes_has_the_numbers_of_one(mlefw, tmp_path):
    write_text(tmp_path)
    given = [one for one in TEXT if "dropout" not in one and "scheduler" not in one]
    fixed = (*given, "scheduler=none", "trainer.precision=64-true", "report=false", "plots=false")
    for name, more in (("one", ()), ("two", TWO)):
        for command in ((f"run_dir={name}", *fixed, *more), (f"resume={name}", "trainer.max_epochs=4")):
            done = mlefw("train", *command)
            assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_line_search_in_two_processes(mlefw, tmp_path):
    for name, more in (("one", ()), ("two", TWO)):
        line = ("optimizer=lbfgs", "batch=full", "batch.max_rows=40", "model=linear", "report=false", "plots=false")
        done = mlefw("train", f"run_dir={name}", *line, "trainer.max_epochs=2", *more)
        assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_run_in_two_processes_goes_on(mlefw, tmp_path):
    for name, more in (("one", ()), ("two", TWO)):
        line = ("batch=growing", "batch.every=1", "batch.size=7", "prior=l1", "scheduler=none", *SMALL)
        for command in ((f"run_dir={name}", *line, *more), (f"resume={name}", "trainer.max_epochs=6")):
            done = mlefw("train", *command)
            assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "one", tmp_path / "two")
    assert summary_of(tmp_path / "two")["num_epochs"] == 6


@pytest.mark.parametrize(("seconds", "warns"), [(0.4, True), (4.0, False)])
def test_short_steps_are_warned_of(monkeypatch, recwarn, seconds, warns):
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    module, trainer = Mock(spec=LikelihoodModule, seconds=seconds, device=torch.device("cpu")), Mock(global_step=0)
    callback = WarnOfShortSteps()
    for _ in range(3):
        callback.on_train_epoch_start(trainer, module)
        trainer.global_step += 100
        callback.on_train_epoch_end(trainer, module)
    assert ["4.0 ms" in str(warning.message) for warning in recwarn] == [True] * warns


@pytest.mark.parametrize("num_rows", range(1, 18))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_row_belongs_to_one_process(monkeypatch, num_rows, count):
    rows = []
    monkeypatch.setattr(ranks, "world_size", lambda: count)
    for number in range(count):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        rows += list(range(num_rows))[ranks.own_rows(num_rows)]
    assert rows == list(range(num_rows))


def is_first():
    return os.environ["RANK"] == "0"


def test_both_succeed():
    assert run(lambda: 0, 2) == 0


def test_the_exit_code_is_that_of_the_first():
    def task():
        print("told", file=sys.stderr)
        return 3

    assert run(task, 2) == 3


def test_a_lost_process_does_not_leave_the_first_waiting(monkeypatch, capfd):
    def task():
        if is_first():
            # Until it is ended.
            signal.pause()
        print("the cause", file=sys.stderr)
        return 4

    monkeypatch.setattr("mlefw.distributed.spawn._GRACE_S", 0.1)
    assert run(task, 2) == 4
    assert capfd.readouterr().err == "the cause\n"


def test_a_first_process_that_notices_the_loss_is_not_the_cause(monkeypatch):
    """It notices it by their connection, as soon as the other one has let go of its end."""
    near, far = os.pipe()

    def task():
        if is_first():
            os.close(far)
            os.read(near, 1)
            return LostRankError.exit_code
        os.close(near)
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    start = spawn._start

    def started(*arguments):
        found = start(*arguments)
        os.close(far)
        # The second process is gone before the first is looked at.
        found[1].join()
        return found

    monkeypatch.setattr(spawn, "_start", started)

    with pytest.raises(MlefwError, match="process 1 of the run was killed by SIGKILL"):
        run(task, 2)
    os.close(near)


def test_a_signal_reaches_the_first_process_which_has_time_to_end():
    """The first process says that it is ready, and when the signal has come; the parent waits for nothing else."""
    near, far = os.pipe()
    silent, _ = os.pipe()

    def work():
        with deferred():
            os.kill(os.getppid(), signal.SIGTERM)
            while not is_pending():
                signal.pause()
            # What it has still to do is done.
            os.write(far, b"done")
        raise_pending()

    with handled():
        code = run(lambda: guarded(work) if is_first() else len(os.read(silent, 1)), 2)
    assert code == 143
    assert os.read(near, 9) == b"done"
    for descriptor in (near, far, silent, _):
        os.close(descriptor)
