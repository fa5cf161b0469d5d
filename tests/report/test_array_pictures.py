"""What runs on arrays show: confusion, NLL by position, the hardest rows, and the word for one observation."""

import json
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import scipy.stats
import torch
from conftest import Run, summary_of
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlefw.cli import run
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.objective.objective import Objective, evaluate
from mlefw.plot.confusion import confusion
from mlefw.plot.image_grid import Tile, image_grid
from mlefw.plot.style import png
from mlefw.prior.none import NoPrior
from mlefw.report.forecast import Sample
from mlefw.report.hardest import Hardest, View, hardest
from mlefw.rows.clustered import Units
from mlefw.rows.rows import Rows, constant
from mlefw.rows.shape import RowShape
from mlefw.run import exhibit_arrays
from mlefw.schema.kinds import RowSchema
from mlefw.score.breakdown import class_counts, nll_by_position

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

N, T, K = 30, 4, 3


def masked(y: torch.Tensor) -> tuple[Rows, np.ndarray]:
    """Rows of T observations of random weights, some of them zero, one position never observed; x is eta itself."""
    random = np.random.default_rng(5)
    weight = random.integers(0, 3, (N, T)).astype(float)
    weight[:, 2] = 0
    x = torch.from_numpy(random.normal(size=(N, T, K)))
    return Rows(x, y, torch.from_numpy(weight), constant(0.0, (N, T))), weight


def changed(one: Path, other: Path) -> float:
    """The share of pixels in which two pictures differ visibly."""
    pixels = [matplotlib.image.imread(file) for file in (one, other)]
    assert pixels[0].shape == pixels[1].shape
    return float((np.abs(pixels[0] - pixels[1]).max(-1) > 0.1).mean())


def model(head: torch.nn.Module) -> Objective:
    return Objective(torch.nn.Identity(), head, NoPrior(), float(N)).eval()  # type: ignore[arg-type]


def test_counts_of_classes_are_those_of_scikit_learn() -> None:
    y = torch.from_numpy(np.random.default_rng(6).integers(0, K, (N, T)))
    rows, weight = masked(y)
    seen = weight.ravel() > 0
    likeliest = rows.x.numpy().argmax(-1).ravel()
    expected = confusion_matrix(y.numpy().ravel()[seen], likeliest[seen], sample_weight=weight.ravel()[seen])
    assert np.array_equal(class_counts(model(CategoricalHead(K)), rows, K), expected)
    two = rows._replace(x=rows.x[..., :1], y=(y > 0).double())
    expected = confusion_matrix(
        two.y.numpy().ravel()[seen], (two.x.numpy().ravel() > 0)[seen], sample_weight=weight.ravel()[seen]
    )
    assert np.array_equal(class_counts(model(BernoulliHead()), two, 2), expected)
    assert class_counts(model(GaussianHead(1.0)), two, 2) is None


def test_the_nll_at_a_position_is_the_weighted_mean_over_rows() -> None:
    y = torch.from_numpy(np.random.default_rng(7).normal(size=(N, T)))
    rows, weight = masked(y)
    rows = rows._replace(x=rows.x[..., :1])
    nll = -scipy.stats.norm(rows.x[..., 0].numpy(), 1.0).logpdf(y.numpy())
    found = nll_by_position(model(GaussianHead(1.0)), rows)
    assert np.isnan(found[2])
    for t in (0, 1, 3):
        assert found[t] == pytest.approx(np.average(nll[:, t], weights=weight[:, t]), rel=1e-12)


def test_the_hardest_rows_are_those_of_the_largest_mean_with_enough_observations() -> None:
    y = torch.from_numpy(np.random.default_rng(8).integers(0, K, (N, T)))
    rows, weight = masked(y)
    objective = model(CategoricalHead(K))
    nll = evaluate(objective, rows).nll
    found = hardest(objective, nll, rows, "test", 5)
    assert found is not None
    p = scipy.special.softmax(rows.x.numpy(), -1)
    each = -np.log(np.take_along_axis(p, y.numpy()[..., None], -1)[..., 0])
    mean = np.array([np.average(each[i], weights=weight[i]) if weight[i].any() else -np.inf for i in range(N)])
    mean[2 * weight.sum(1) < weight.sum(1).max()] = -np.inf
    assert found.index.tolist() == np.argsort(-mean)[:5].tolist()
    assert np.allclose(found.mean, np.sort(mean)[::-1][:5], rtol=1e-12)
    assert np.allclose(found.nll, each[found.index], rtol=1e-12)
    assert found.distribution.batch_shape == (5, T) and found.num_rows == (weight.sum(1) > 0).sum()
    share = (weight * each)[found.index].sum() / (weight * each).sum()
    assert found.share == pytest.approx(share, rel=1e-12)
    nothing = rows._replace(weight=torch.zeros(N, T))
    assert hardest(objective, nll, nothing, "test", 5) is None


def test_a_confusion_matrix_says_its_counts_and_the_commonest_error() -> None:
    count = np.array([[40.0, 3, 0], [9, 50, 1], [0, 0, 20]])
    figure = confusion(count, ["cat", "$dog$", "eel"], "test: 123 rows")
    axes = figure.axes[0]
    written = {(round(text.get_position()[1]), round(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert written == {(i, j): f"{count[i, j]:g}" for i in range(3) for j in range(3) if count[i, j]}
    assert figure.get_suptitle() == r"89 % are classified right; most often \$dog\$ is taken for cat (9 of 60)"
    assert png(figure).startswith(b"\x89PNG")


def test_images_have_one_scale_and_wrong_ones_a_frame() -> None:
    tiles = [Tile(np.full((2, 2), 3.0), ["a"]), Tile(np.full((2, 2), 7.0), ["b", "c"], is_wrong=True)]
    figure = image_grid(tiles, "title", "subtitle")
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    assert (shown[0] == 0).all() and (shown[1] == 1).all()
    widths = [axes.spines["left"].get_linewidth() for axes in figure.axes]
    assert widths[1] > widths[0]
    colour = image_grid([Tile(np.full((2, 2, 3), 51, dtype=np.uint8), ["a"])], "title", "subtitle")
    assert np.allclose(np.asarray(colour.axes[0].images[0].get_array()), 0.2)


@pytest.mark.parametrize(
    ("shape", "word"),
    [
        (RowShape((5,)), "row"),
        (RowShape((1, 8, 8)), "row"),
        (RowShape((6, 2), (6,)), "position"),
        (RowShape((3, 8, 9), (8, 9)), "pixel"),
        (RowShape((9,), (9,), 20), "position"),
        (RowShape((9,), (9,), 20, True), "token"),
    ],
)
def test_the_word_for_an_observation(shape: RowShape, word: str) -> None:
    assert shape.observation == word


def test_pictures_of_calibration_have_one_observation_of_each_row_or_unit() -> None:
    y = torch.arange(N * T, dtype=torch.float64).view(N, T)
    rows, weight = masked(y)
    sample = Sample.of({"test": rows}, "y", None, RowShape((T, K), (T,)))
    held = np.flatnonzero(weight.any(1))
    assert sample.index.tolist() == held.tolist()
    kept = sample.rows.weight.numpy()
    for place, row in enumerate(held):
        known = np.flatnonzero(weight[row])
        assert np.flatnonzero(kept[place]).tolist() == [known[place % len(known)]]
    assert sample.description == f"test positions (n = {len(held)}, one of each row)"
    units = {"test": Units(torch.arange(N) // 10, "3 groups")}
    sample = Sample.of({"test": rows}, "y", None, RowShape((T, K), (T,)), units)
    assert sample.index.tolist() == [held[held >= start][0] for start in (0, 10, 20)]
    sequential = Sample.of({"test": rows}, "y", None, RowShape((T,), (T,), K, True), units)
    assert np.array_equal(sequential.rows.weight, weight[held])
    assert sequential.description.startswith(f"test tokens (n = {(weight > 0).sum()} in ")


def text_view(schema: RowSchema) -> bool:
    return True


def passages(hard: Hardest, schema: RowSchema) -> str:
    return "\n".join(f"<b>row {index}</b> of {schema.target}" for index in hard.index.tolist())


def test_a_run_on_images_shows_classes_and_the_hardest_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["train", "data=digits_images", "model=cnn", "model.channels=[4]", "head=categorical", "trainer.max_epochs=1"]
    assert run([*few, "baseline=none", "run_dir=r"]) == 0
    names = {file.stem for file in (tmp_path / "r" / "plots").iterdir()}
    assert names == {"learning_curves", "reliability", "confusion", "hardest"}
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "The 24 hardest of 359 test images carry" in page and "are classified right" in page
    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()
    assert {"confusion", "hardest"} <= set(events.Tags()["images"])
    found = summary_of(tmp_path / "r")
    assert found["observation"] == "row" and found["nll_se_unit"] == "rows" and "nll_by_position" not in found

    assert run(["evaluate", "run=r", "plots=new"]) == 0
    for name in ("confusion.png", "hardest.png"):
        # Classes that are all but equally likely may change places between blocks of other sizes.
        assert changed(tmp_path / "new" / name, tmp_path / "r" / "plots" / name) < 1e-3

    monkeypatch.setattr(exhibit_arrays, "VIEWS", (View("passages", "Hardest rows", 10, text_view, passages),))
    assert run([*few, "baseline=none", "run_dir=t"]) == 0
    said = (tmp_path / "t" / "plots" / "passages.txt").read_text(encoding="utf-8")
    with np.load(tmp_path / "t" / "row_nll.npz") as stored:
        order = np.argsort(-stored["test_nll_nats"], kind="stable")[:10]
    assert said.splitlines() == [f"<b>row {index}</b> of digit" for index in order]
    page = (tmp_path / "t" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Hardest rows</h2>" in page and f"&lt;b&gt;row {order[0]}&lt;/b&gt;" in page and "<b>row" not in page
    events = EventAccumulator(str(tmp_path / "t" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    assert f"    <b>row {order[0]}</b>" in str(events.Tensors("passages/text_summary")[0].tensor_proto.string_val[0])


NETS = """
import torch
from torch import nn


class Steps(nn.Linear):
    def __init__(self, input_shape: tuple[int, ...], positions: tuple[int, ...], eta_dim: int) -> None:
        super().__init__(input_shape[1], eta_dim)
"""


def test_a_run_on_series_counts_by_position(mlefw: Run, tmp_path: Path) -> None:
    random = np.random.default_rng(9)
    x, y = random.normal(size=(80, 6, 2)), random.integers(0, 3, (80, 6))
    weight = np.ones((80, 6))
    weight[:, 0] = 0
    np.savez(tmp_path / "s.npz", x=x, y=y, w=weight, name=np.arange(80))
    (tmp_path / "nets.py").write_text(NETS, encoding="utf-8")
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "steps.yaml").write_text("# A plugin.\n_target_: nets.Steps\n", encoding="utf-8")
    plugin = ("--plugin", "nets", "--config-dir", "conf")
    data = ("data=npz", "data.path=s.npz", "data.weight=w", "data.validation_fraction=0", "calibrate=none")
    done = mlefw("train", *data, "model=steps", "head=categorical", "trainer.max_epochs=2", "run_dir=r", *plugin)
    assert done.returncode == 0, done.stderr
    assert "steps, nats per position" in done.stdout and "80 positions" in done.stdout
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "All NLL in nats per position" in page and "test: 16 rows, 80 positions" in page
    for text in (done.stdout, page, (tmp_path / "r" / "summary.json").read_text(encoding="utf-8")):
        assert not re.search(r"(per|a) row\b(?! \d)", text.replace("of a row", ""))
    names = {file.stem for file in (tmp_path / "r" / "plots").iterdir()}
    assert names == {"learning_curves", "reliability", "confusion", "nll_by_position"}
    # The NLL at each position from the predictions, and that of the null model from shares of the training rows.
    assert mlefw("predict", "run=r", "data.path=s.npz", "output=p.npz", "--plugin", "nets").returncode == 0
    found = summary_of(tmp_path / "r")
    with np.load(tmp_path / "p.npz") as predicted, np.load(tmp_path / "r" / "row_nll.npz") as stored:
        nll = predicted["nll_nats"]
        mean = np.nanmean(nll[:, 1:], 1)
        test = np.abs(mean[:, None] - stored["test_nll_nats"]).min(1) < 1e-9
    assert test.sum() == 16
    by = found["nll_by_position"]
    assert by["split"] == "test" and by["model"][0] is None and by["null"][0] is None
    assert by["model"][1:] == pytest.approx(nll[test][:, 1:].mean(0), rel=1e-9)
    share = np.bincount(y[~test][:, 1:].ravel(), minlength=3) / (64 * 5)
    assert by["null"][1:] == pytest.approx((-np.log(share))[y[test][:, 1:]].mean(0), rel=1e-6)
    done = mlefw("evaluate", "run=r", "output=e.json", "--plugin", "nets")
    assert done.returncode == 0 and "nats per position" in done.stdout and "per row" not in done.stdout
    assert "16 test rows, 80 positions" in done.stdout.replace("\n", " ")
    scored = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert scored["observation"] == "position" and scored["num_observations"] == 80
    done = mlefw("check", *data, "model=steps", "head=categorical", *plugin)
    assert done.returncode == 0 and "nats per position." in done.stdout + done.stderr
    done = mlefw("compare", "runs=r", "report=c.html")
    assert done.returncode == 0 and "nats per" in done.stdout
    assert "nats per position" in (tmp_path / "c.html").read_text(encoding="utf-8")
