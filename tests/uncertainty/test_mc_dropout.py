"""Monte Carlo dropout: the mixture over masks, against the network computed by hand, and as a user meets it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import summary_of
from linear_runs import rows_of
from pyarrow import parquet
from scipy import special, stats
from torch import nn

from mlefw.cli import run
from mlefw.distribution import quantile
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.negative_binomial import NegativeBinomialHead
from mlefw.head.zero_inflated import ZeroInflatedPoissonHead
from mlefw.model.mlp import Mlp
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.rows.rows import Rows
from mlefw.trained import load
from mlefw.uncertainty.mc_dropout import DropoutMasks, McDropout

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

HEADS: list[tuple[Head, int]] = [
    (GaussianHead(), 1),
    (GaussianHead(scale="predicted"), 2),
    (BernoulliHead(), 1),
    (CategoricalHead(3), 3),
    (NegativeBinomialHead(), 1),
    (ZeroInflatedPoissonHead(), 1),
]


def network(head: Head, dropout: float = 0.4) -> Objective:
    torch.manual_seed(5)
    model = Mlp(3, head.eta_dim, hidden=[4, 5], activation="relu", dropout=dropout).double()
    nn.init.normal_(model.last.weight)
    return Objective(model, head.double(), NoPrior(), 30.0).eval()


def some_rows(num_rows: int = 7) -> Rows:
    random = np.random.default_rng(3)
    return rows_of(random.normal(size=(num_rows, 3)), random.integers(0, 2, num_rows).astype(float))


def by_hand(objective: Objective, masks: DropoutMasks, rows: Rows) -> np.ndarray:
    """Eta of every row under every mask, (n, num_masks, eta_dim)."""
    model, x = objective.model, rows.x.numpy()
    assert isinstance(model, Mlp)
    etas = []
    for number in range(masks.num_masks):
        a = x
        linears = [layer for layer in model.body if isinstance(layer, nn.Linear)]
        for index, layer in enumerate(linears):
            a = np.maximum(a @ layer.weight.detach().numpy().T + layer.bias.detach().numpy(), 0)
            a = a * masks.masks[index][number].numpy()
        etas.append(a @ model.last.weight.detach().numpy().T + model.last.bias.detach().numpy())
    return np.stack(etas, 1)


def test_a_gaussian_is_the_mixture_over_masks() -> None:
    objective, rows = network(GaussianHead(scale=0.5)), some_rows()
    masks = McDropout(num_masks=50).fit(objective)
    found = masks.predictive(objective, rows)
    loc = by_hand(objective, masks, rows)[..., 0]
    # The numbers drawn are float32.
    close = {"rtol": 1e-6, "atol": 1e-6}
    np.testing.assert_allclose(found.mean, loc.mean(1), **close)
    np.testing.assert_allclose(found.variance, 0.25 + loc.var(1), **close)
    density = special.logsumexp(stats.norm.logpdf(rows.y.numpy()[:, None], loc, 0.5), 1, b=1 / 50)
    np.testing.assert_allclose(found.log_prob(rows.y), density, **close)
    q = quantile.quantile(found, 0.9).numpy()
    np.testing.assert_allclose(stats.norm.cdf(q[:, None], loc, 0.5).mean(1), 0.9, **close)
    assert found.variance.min() > 0.25


def test_classes_have_mean_probabilities() -> None:
    rows = some_rows()
    objective = network(CategoricalHead(3))
    masks = McDropout(num_masks=30).fit(objective)
    found = masks.predictive(objective, rows)
    expected = special.softmax(by_hand(objective, masks, rows), -1).mean(1)
    np.testing.assert_allclose(found.probs, expected, rtol=1e-6)
    objective = network(BernoulliHead())
    masks = McDropout(num_masks=30).fit(objective)
    found = masks.predictive(objective, rows)
    np.testing.assert_allclose(found.probs, special.expit(by_hand(objective, masks, rows))[..., 0].mean(1), rtol=1e-6)


@pytest.mark.parametrize(("head", "columns"), HEADS)
def test_every_kind_of_head_is_mixed(head: Head, columns: int) -> None:
    objective, rows = network(head), some_rows()
    assert head.eta_dim == columns
    masks = McDropout(num_masks=20).fit(objective)
    found = masks.predictive(objective, rows)
    eta = torch.from_numpy(by_hand(objective, masks, rows))
    y = rows.y if head.target != "labels" else rows.y.long()
    each = objective.head.nll(eta, y.unsqueeze(1).expand(-1, 20)).detach().numpy()
    np.testing.assert_allclose(-found.log_prob(y), -special.logsumexp(-each, 1, b=1 / 20), rtol=1e-5, atol=1e-6)
    if head.target == "numeric":
        low, high = quantile.interval(found, 0.9)
        assert bool((low <= high).all())


def test_masks_are_seeded_and_the_same_for_all_rows() -> None:
    objective, rows = network(GaussianHead(scale=0.5)), some_rows(9)
    whole = McDropout(40, seed=1).fit(objective).predictive(objective, rows).mean
    again = McDropout(40, seed=1).fit(objective)
    single = torch.cat([again.predictive(objective, rows.take(slice(k, k + 1))).mean for k in range(9)])
    torch.testing.assert_close(single, whole, rtol=1e-12, atol=1e-12)
    other = McDropout(40, seed=2).fit(objective).predictive(objective, rows).mean
    assert not torch.allclose(other, whole)
    plain = objective.eta(rows.x, rows.offset)
    torch.testing.assert_close(objective.eta(rows.x, rows.offset), plain)
    assert not objective.training


def test_masks_drop_as_often_as_training_did() -> None:
    objective = network(GaussianHead(scale=0.5), dropout=0.3)
    masks = McDropout(4000).fit(objective)
    masks.predictive(objective, some_rows(1))
    for mask in masks.masks.values():
        share = float((mask == 0).double().mean())
        assert abs(share - 0.3) < 5 * np.sqrt(0.3 * 0.7 / mask.numel())
        np.testing.assert_allclose(mask[mask > 0], 1 / 0.7, rtol=1e-6)


def test_a_model_without_dropout_is_refused() -> None:
    with pytest.raises(UsageError, match="the model has no dropout"):
        McDropout().check(network(GaussianHead(), dropout=0.0))
    objective = network(GaussianHead())
    objective.model = nn.Sequential(nn.Dropout1d(0.2), nn.Linear(3, 1))
    with pytest.raises(UsageError, match=r"Dropout1d: expected torch\.nn\.Dropout alone"):
        McDropout().check(objective)
    with pytest.raises(UsageError, match="num_masks=0"):
        McDropout(0)


def test_train_predict_and_evaluate(
    tmp_path: Path, table: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["train", "head=poisson", "data=csv", f"data.path={table('poisson')}", "data.target=y", "logger=none"]
    common += ["model.hidden=[6]", "trainer.max_epochs=5", "report=false", "plots=false", "callback=none"]
    chosen = "uncertainty=mc_dropout"
    assert run([*common, f"run_dir={tmp_path / 'n'}", chosen]) == 2
    assert "mlefw train model.dropout=0.1" in capfd.readouterr().err
    assert run([*common, "model.dropout=0.3", chosen, f"run_dir={tmp_path / 'r'}"]) == 0
    summary = summary_of(tmp_path / "r")
    assert summary["mc_dropout"]["num_masks"] == 100
    assert summary["mc_dropout"]["test"]["nll_nats"] != summary["metrics"]["test"]["nll_nats"]
    capfd.readouterr()
    where = f"run={tmp_path / 'r'}"
    assert run(["evaluate", where, chosen]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].split() == ["as", "fitted", "mc_dropout"]
    for name in "ab":
        assert run(["predict", where, chosen, f"output={tmp_path / name}.parquet"]) == 0
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    known = load(tmp_path / "r").predict({f"x{j}": np.zeros(2) for j in range(3)}, uncertainty="mc_dropout")
    # The variance of a mixture of Poissons is its mean and the variance of their rates.
    assert (known["sd"] ** 2 > known["mean"] * (1 + 1e-9)).all()
    nll = parquet.read_table(tmp_path / "a.parquet")["nll_nats"].to_numpy()
    assert nll.mean() == pytest.approx(summary["mc_dropout"]["test"]["nll_nats"], rel=1e-9)
    # A method itself does as well as its name.
    model = load(tmp_path / "r")
    given = model.predict({f"x{j}": np.zeros(2) for j in range(3)}, uncertainty=McDropout())
    np.testing.assert_array_equal(given["sd"], known["sd"])
    with pytest.raises(UsageError, match="expected laplace, mc_dropout, none, or a method"):
        model.predict({f"x{j}": np.zeros(2) for j in range(3)}, uncertainty="dropout")
