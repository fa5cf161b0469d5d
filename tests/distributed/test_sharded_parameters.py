"""`trainer.strategy=fsdp`: two processes that share the parameters have the numbers and the files of one process."""

import copy
import gc
import os
import signal
import weakref
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run, summary_of
from distributed.test_several_processes import assert_same, files
from interrupted import stopping_after, train, write_text
from lightning import LightningModule
from torch import distributed, nn
from torch.optim import SGD, Adam

from mlefw.batch.full import FullBatch
from mlefw.callback.board import WriteBoard
from mlefw.callback.checkpoints import KeepCheckpoints
from mlefw.configuration.read import read_settings, settings_of
from mlefw.distributed import ranks, sharding
from mlefw.distributed.spawn import run
from mlefw.errors import UsageError
from mlefw.model.transformer import Transformer
from mlefw.objective.gradient import clip
from mlefw.rows.rows import Rows
from mlefw.run import sharded
from mlefw.run.prepare import prepare
from mlefw.run.trainer import build_module
from mlefw.trained import load
from mlefw.training.datamodule import RowsModule
from mlefw.training.trainer_view import TrainerView

TWO = ("trainer.devices=2", "trainer.strategy=fsdp")
ONE = ("trainer.devices=1", "trainer.strategy=auto")
PLAIN = ("trainer.precision=64-true", "trainer.accelerator=cpu", "report=false", "plots=false")
TABLE = ("data=synthetic", "data.num_rows=161", "prior=l2", "step.clip_norm=0.3", "optimizer.lr=0.05", *PLAIN)
TEXT = (
    *("data=text", "data.path=text.txt", "data.length=8", "model.width=8", "model.layers=2", "model.heads=2"),
    *("batch.size=16", "scheduler=none", "prior=l2", "step.clip_norm=0.5", "trainer.max_steps=24", *PLAIN),
)
"""A transformer of two blocks: 81 windows of 8 characters, in 6 steps an epoch."""


def done(mlefw: Run, *arguments: str) -> None:
    result = mlefw("train", *arguments)
    assert result.returncode == 0, result.stderr


def content(run_dir: Path, name: str = "last.ckpt") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints" / name, weights_only=True)
    return found


def forms(node: Any, name: str = "") -> dict[str, Any]:
    """Types, and shapes of tensors, by dotted name."""
    if isinstance(node, dict):
        return {full: form for key in node for full, form in forms(node[key], f"{name}.{key}").items()}
    if isinstance(node, list | tuple):
        return {full: form for k, part in enumerate(node) for full, form in forms(part, f"{name}[{k}]").items()}
    return {name: (type(node), node.dtype, node.shape) if isinstance(node, torch.Tensor) else type(node)}


def test_a_table_has_the_numbers_and_the_files_of_one_process(mlefw: Run, tmp_path: Path) -> None:
    """Of 97 training rows in batches of 32 the last has one: the second process passes no row through the network.

    The hidden layer has 5 units, which do not divide evenly, and the output one, which leaves nothing to the second
    process. Clipping by the norm of a share, or a prior that counts once in each process, would change all numbers.
    """
    table = (*TABLE, "model.hidden=[5]", "trainer.max_epochs=4")
    done(mlefw, "run_dir=one", *table, *ONE)
    done(mlefw, "run_dir=two", *table, *TWO)
    one, two = tmp_path / "one", tmp_path / "two"
    assert_same(one, two)
    assert summary_of(two)["best_epoch"] >= 0
    assert files(one) == files(two)
    for name in ("last.ckpt", "best.ckpt"):
        assert forms(content(one, name)) == forms(content(two, name))
    x = torch.randn(3, 5, dtype=torch.float64).numpy()
    assert load(two).predict(x)["mean"] == pytest.approx(load(one).predict(x)["mean"], rel=1e-8)


def test_a_transformer_goes_on_in_one_process(mlefw: Run, tmp_path: Path) -> None:
    """It is stopped within its second epoch."""
    write_text(tmp_path)
    done(mlefw, "run_dir=one", *TEXT)
    done(mlefw, "run_dir=two", *TEXT, "trainer.max_steps=9", *TWO)
    done(mlefw, "resume=two", "trainer.max_steps=24", *ONE)
    assert_same(tmp_path / "one", tmp_path / "two")
    assert summary_of(tmp_path / "two")["best_epoch"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("first", [ONE, TWO])
def test_a_transformer_goes_on_in_two_processes(mlefw: Run, tmp_path: Path, first: tuple[str, ...]) -> None:
    write_text(tmp_path)
    done(mlefw, "run_dir=one", *TEXT)
    done(mlefw, "run_dir=two", *TEXT, "trainer.max_steps=9", *first)
    done(mlefw, "resume=two", "trainer.max_steps=24", *TWO)
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("optimizer=sgd", "optimizer.momentum=0.9", "average=none", "batch=growing", "batch.every=1", "batch.size=7"),
        ("batch=full", "batch.max_rows=16", "early_stopping.patience=2", "trainer.max_epochs=8"),
        ("optimizer=sgd", "optimizer.lr=2", "optimizer.momentum=0.9", "batch=full", "trainer.max_epochs=20"),
    ],
    ids=["growing", "slices", "recovery"],
)
def test_other_trainings_have_the_numbers_of_one_process(mlefw: Run, tmp_path: Path, more: tuple[str, ...]) -> None:
    """Of 97 rows in slices of 16 the first process has four slices, and the second three."""
    given = dict(one.split("=", 1) for one in ("trainer.max_epochs=4", "model.hidden=[5]", *TABLE, *more))
    given |= {} if "trainer.max_epochs=20" not in more else {"step.clip_norm": "0", "prior": "none"}
    settings = [f"{name}={value}" for name, value in given.items()]
    done(mlefw, "run_dir=one", *settings)
    done(mlefw, "run_dir=two", *settings, *TWO)
    assert_same(tmp_path / "one", tmp_path / "two")
    text = str(summary_of(tmp_path / "two")["warnings"])
    assert ("went on from its last evaluated state" in text) == ("optimizer.lr=2" in more)
    for name, more in (("one", TWO), ("two", ONE)):
        done(mlefw, f"resume={name}", "trainer.max_epochs=24", *more)
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("optimizer=lbfgs", "batch=full"), "optimizer=lbfgs searches along a line"),
        (("prior=l1",), "prior=l1 makes weights exactly zero"),
        (("prior=elastic_net",), "prior=elastic_net makes weights exactly zero"),
        (("model=linear",), "model=linear has few parameters"),
        (("head.terms.scale=1 + x0",), "formulas \\(head.terms\\) have coefficients"),
    ],
)
def test_what_needs_whole_tensors_is_refused(settings: tuple[str, ...], words: str) -> None:
    config = settings_of({**read_settings("train", ["data=synthetic", *TWO, *settings], [], []), "run_dir": "r"})
    with pytest.raises(UsageError, match=f"^trainer.strategy=fsdp and {words}"):
        prepare(config, None)


def test_blocks_of_a_transformer_are_gathered_one_at_a_time() -> None:
    network = Transformer(7, 4, (4,), 7, width=8, layers=3, heads=2, tied=True)
    assert sharding.units(network) == list(network.blocks)


def test_a_block_that_shares_a_parameter_is_no_unit() -> None:
    one, two, three = (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))) for _ in range(3))
    two[0].weight = one[0].weight
    network = nn.Sequential(nn.Linear(2, 2), one, two, three)
    assert sharding.units(network) == [three, one[1], two[1]]


def in_two_processes(check: Any) -> None:
    """Run a check in two forks of this process, which are connected."""

    def task() -> int:
        torch.set_num_threads(1)
        distributed.init_process_group("gloo")
        try:
            check()
        finally:
            ranks.close()
        return 0

    assert run(task, 2) == 0


def seeded() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)).double()


def test_each_process_holds_its_share_of_every_tensor() -> None:
    def check() -> None:
        network, known = seeded(), seeded()
        sharding.shard(network, torch.device("cpu"))
        number = ranks.rank()
        sizes = {name: tuple(sharding.own(p).shape) for name, p in network.named_parameters()}
        assert (
            sizes
            == [
                {"0.weight": (3, 3), "0.bias": (3,), "1.weight": (1, 5), "1.bias": (1,)},
                {"0.weight": (2, 3), "0.bias": (2,), "1.weight": (0, 5), "1.bias": (0,)},
            ][number]
        )
        state = sharding.whole({"network": dict(network.state_dict()), "other": [1]})
        assert state["other"] == [1]
        for name, value in known.state_dict().items():
            found = state["network"][name]
            assert type(found) is torch.Tensor
            assert torch.equal(found, value) if number == 0 else found.numel() == 0
        norm = torch.cat([p.detach().flatten() for p in known.parameters()]).norm()
        torch.testing.assert_close(sharding.joint_norm(list(network.parameters())), norm)
        weight = network[0].weight
        assert sharding.largest(weight) == known[0].weight.abs().max()
        with torch.no_grad():
            if number == 1:
                sharding.own(weight)[0, 0] = torch.nan
        assert not sharding.is_finite(weight)
        sharding.load(network, known.state_dict())
        assert sharding.is_finite(weight)
        assert torch.equal(weight.full_tensor(), known[0].weight)

    in_two_processes(check)


@pytest.mark.parametrize("kind", [Adam, SGD])
def test_the_state_of_an_optimiser_is_whole_in_a_file(kind: Any) -> None:
    """A parameter that is whole, beside shares, is updated in one call with them."""

    def steps(optimizer: Any, network: nn.Module, extra: nn.Parameter, scale: float, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (scale * (network(torch.ones(4, 3).double()) + extra).square().sum()).backward()
            if scale < 1:
                ranks.all_reduce([extra.grad])
            with sharding.mixed([*network.parameters(), extra]):
                optimizer.step()

    def check() -> None:
        more = {"lr": 0.01} if kind is Adam else {"lr": 0.01, "momentum": 0.9}
        known, network = seeded(), seeded()
        extra = nn.Parameter(torch.zeros(1).double())
        whole = kind([*known.parameters(), extra], **more)
        steps(whole, known, extra, 1.0, 2)
        before, own_extra = [p.detach().clone() for p in known.parameters()], extra.detach().clone()
        sharding.shard(network, torch.device("cpu"))
        sharding.load(network, dict(zip(network.state_dict(), before, strict=True)))
        other = nn.Parameter(own_extra)
        shared = kind([*network.parameters(), other], **more)
        sharding.load_optimizer(shared, sharding.with_own_kernels(shared, copy.deepcopy(whole.state_dict())))
        steps(whole, known, extra, 1.0, 2)
        # Each process passes the same rows, and has half of the loss.
        steps(shared, network, other, 0.5, 2)
        state = sharding.whole(shared.state_dict())
        if ranks.rank() == 0:
            for one, two in zip(whole.state_dict()["state"].values(), state["state"].values(), strict=True):
                assert one.keys() == two.keys()
                for name, value in one.items():
                    torch.testing.assert_close(two[name], value)

    in_two_processes(check)


def test_a_gradient_is_clipped_by_its_whole_norm() -> None:
    config = settings_of({**read_settings("train", ["data=synthetic", *TWO, *PLAIN], [], []), "run_dir": "r"})

    def check() -> None:
        prepared = prepare(config, None)
        estimand = sharded.trained_estimand(config, prepared.estimand, is_needed=False)
        module = build_module(config.replaced(step={"clip_norm": 0.1}), estimand, prepared.rows)
        network = sharded.network(module)
        assert network is not None
        referred = [weakref.ref(p) for p in network.parameters() if p.ndim]
        sharding.shard(network, torch.device("cpu"))
        gc.collect()
        # A whole tensor that something still refers to would fill the device.
        assert not any(one() is not None for one in referred)
        gradients = []
        for p in estimand.objective.parameters():
            p.grad = torch.ones_like(p)
            gradients.append(torch.ones(p.shape))
        clip(gradients, 0.1)
        module.step._clip()  # type: ignore[attr-defined]
        for p, expected in zip(estimand.objective.parameters(), gradients, strict=True):
            assert p.grad is not None
            torch.testing.assert_close(sharding.own(p.grad), expected[: len(sharding.own(p.grad))])

    in_two_processes(check)


@pytest.mark.slow
def test_a_signal_leaves_a_checkpoint_from_which_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes to both processes, as from a cluster, in the fourth step of the second epoch."""
    monkeypatch.chdir(tmp_path)
    table = (*TABLE, "model.hidden=[5]", "step.per_chunk=1", "checkpoint.min_seconds=0", "trainer.max_epochs=4")
    assert train("run_dir=one", *table, *ONE) == 0
    with monkeypatch.context() as patch:
        stopping_after(patch, 7)
        assert train("run_dir=two", *table, *TWO) == 128 + signal.SIGTERM
    assert content(tmp_path / "two")["resume"]["step"] == 7
    assert train("resume=two") == 0
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_lost_process_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    original = KeepCheckpoints.on_train_batch_end

    def on_train_batch_end(self: KeepCheckpoints, *args: Any) -> None:
        if ranks.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, *args)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(KeepCheckpoints, "on_train_batch_end", on_train_batch_end)
    assert train("run_dir=two", *TABLE, "model.hidden=[5]", *TWO) == 128 + signal.SIGKILL
    assert "process 1 of the run was killed by SIGKILL" in capfd.readouterr().err
    assert summary_of(tmp_path / "two")["reason"] == "another process of this run has ended"


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_what_ends_the_training_of_the_first_process_ends_it_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    """As where a search ends a trial, whose validation NLL the first process alone compares with others."""

    def stop(self: WriteBoard, trainer: TrainerView, module: LightningModule) -> None:
        trainer.should_stop = trainer.current_epoch == 1

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(WriteBoard, "on_train_epoch_end", stop)
    assert train("run_dir=two", *TABLE, "trainer.max_epochs=6", *TWO, f"trainer.strategy={strategy}") == 0
    assert summary_of(tmp_path / "two")["num_epochs"] == 2


@pytest.mark.parametrize("num_rows", range(1, 12))
def test_all_processes_evaluate_equally_many_blocks(monkeypatch: pytest.MonkeyPatch, num_rows: int) -> None:
    """Each block gathers parameters from all of them."""
    monkeypatch.setattr(ranks, "world_size", lambda: 3)
    x = torch.arange(num_rows, dtype=torch.float64)
    rows = Rows(x[:, None], x, torch.ones_like(x), torch.zeros_like(x))
    found, counts = [], []
    for number in range(3):
        monkeypatch.setattr(ranks, "rank", lambda number=number: number)
        blocks = RowsModule({"train": rows}, FullBatch(), 0, block=2).val_dataloader()[0]
        parts = [block.rows.y.tolist() for block in blocks]
        assert len(parts) == len(blocks)
        counts.append(len(parts))
        found += [value for part in parts for value in part]
    assert found == x.tolist()
    assert counts == [ceil(ceil(num_rows / 3) / 2)] * 3
