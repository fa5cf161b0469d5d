"""Losses that are tweaks of a likelihood: each against an oracle, refused where it does not fit, and never reported."""

import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import summary_of
from scipy.optimize import approx_fprime
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import mlefw.loss
from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.bernoulli import BernoulliHead
from mlefw.head.categorical import CategoricalHead
from mlefw.head.gaussian import GaussianHead
from mlefw.head.laplace import LaplaceHead
from mlefw.head.poisson import PoissonHead
from mlefw.loss.base import Loss
from mlefw.loss.beta_nll import BetaNll
from mlefw.loss.class_weights import ClassWeights
from mlefw.loss.focal import Focal
from mlefw.loss.label_smoothing import LabelSmoothing
from mlefw.loss.plain import Plain
from mlefw.rows.rows import Rows
from mlefw.testing.loss import check_loss

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

NOTHING: dict[str, Loss] = {
    "plain": Plain(),
    "label_smoothing": LabelSmoothing(0.0),
    "focal": Focal(0.0),
    "class_weights": ClassWeights([2.0, 2.0, 2.0]),
    "beta_nll": BetaNll(0.0),
}
"""Every loss at the setting at which it is the plain NLL; the CRPS (`test_crps.py`) has none."""


def classes(num_rows: int = 40, num_classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    eta = 3 * torch.randn(num_rows, num_classes, generator=generator, dtype=torch.float64)
    return eta, torch.randint(num_classes, (num_rows,), generator=generator)


def rows_of(y: torch.Tensor, weight: torch.Tensor | None = None) -> Rows:
    ones = torch.ones(len(y), dtype=torch.float64)
    return Rows(torch.zeros(len(y), 1).double(), y, ones if weight is None else weight, 0 * ones)


def test_every_loss_is_tried() -> None:
    modules = {module.name for module in pkgutil.iter_modules(mlefw.loss.__path__)}
    assert set(NOTHING) == modules - {"base", "crps"}


@pytest.mark.parametrize("name", NOTHING)
def test_each_has_a_setting_at_which_it_is_the_plain_nll(name: str) -> None:
    loss, (eta, y) = NOTHING[name], classes()
    head: Head = CategoricalHead(3)
    if name == "beta_nll":
        head, eta, y = GaussianHead(scale="predicted"), eta[:, :2], y.double()
    loss.check(head)
    loss.learn(rows_of(y))
    torch.testing.assert_close(loss(head, eta, y), head.nll(eta, y), rtol=1e-12, atol=0)
    assert loss.is_likelihood == (name == "plain")


@pytest.mark.parametrize(
    "loss", [*NOTHING.values(), LabelSmoothing(0.2), Focal(1.5), ClassWeights([1.0, 2.0, 3.0]), BetaNll(0.5)]
)
def test_the_public_checks(loss: Loss) -> None:
    check_loss(loss, GaussianHead(scale="predicted") if isinstance(loss, BetaNll) else CategoricalHead(3))


def test_label_smoothing_is_that_of_torch() -> None:
    eta, y = classes()
    expected = cross_entropy(eta, y, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(LabelSmoothing(0.3)(CategoricalHead(3), eta, y), expected)
    target = 0.7 * (y > 0).double() + 0.15
    expected = binary_cross_entropy_with_logits(eta[:, 0], target, reduction="none")
    torch.testing.assert_close(LabelSmoothing(0.3)(BernoulliHead(), eta[:, :1], (y > 0).double()), expected)


def test_the_focal_loss_is_its_formula_at_any_logit() -> None:
    eta = torch.tensor([[-800.0], [-3.0], [0.0], [2.0], [40.0], [800.0]], dtype=torch.float64, requires_grad=True)
    for gamma in (0.5, 1.0, 2.0):
        for outcome in (0.0, 1.0):
            loss = Focal(gamma)(BernoulliHead(), eta, torch.full((6,), outcome, dtype=torch.float64))
            margin = (2 * outcome - 1) * eta.detach().numpy()[:, 0]
            nll = np.logaddexp(0, -margin)
            expected = np.exp(-gamma * np.logaddexp(0, margin)) * nll
            np.testing.assert_allclose(loss.detach(), expected, rtol=1e-12, atol=1e-300)
            (slope,) = torch.autograd.grad(loss.sum(), eta)
            assert bool(torch.isfinite(slope).all())


def test_class_weights_are_those_of_torch_and_of_scikit_learn() -> None:
    eta, y = classes()
    weight = torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)
    loss = ClassWeights(weight.tolist())
    loss.check(CategoricalHead(3))
    loss.learn(rows_of(y))
    ours = loss(CategoricalHead(3), eta, y).mean()
    torch.testing.assert_close(ours, cross_entropy(eta, y, weight=weight))


def test_balanced_classes_reach_what_scikit_learn_does(tmp_path: Path, table: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 2))
    y = (random.random(300) < 1 / (1 + np.exp(2 - x[:, 0]))).astype(int)
    np.savetxt(tmp_path / "d.csv", np.c_[x, y], delimiter=",", header="a,b,y", comments="")
    settings = ["head=bernoulli", "loss=class_weights", "model=linear", "batch=full", "optimizer=lbfgs"]
    settings += ["data=csv", f"data.path={tmp_path / 'd.csv'}", "data.target=y", "trainer.max_epochs=60"]
    settings += ["data.test_fraction=0", "data.validation_fraction=0", "data.standardize=false", "logger=none"]
    assert run(["train", *settings, "report=false", "plots=false", f"run_dir={tmp_path / 'r'}"]) == 0
    state = torch.load(tmp_path / "r/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    known = LogisticRegression(class_weight="balanced", C=np.inf, tol=1e-10, max_iter=1000).fit(x, y)
    ours = next(value for name, value in state.items() if name.endswith("layer.weight"))
    np.testing.assert_allclose(ours, known.coef_, rtol=1e-4)
    summary = summary_of(tmp_path / "r")
    assert summary["loss"] == "class_weights(weights=balanced)"
    # What is reported is the likelihood itself, and so are the exact estimate and the distance from it.
    center = next(float(value[0]) for name, value in state.items() if name.endswith("center"))
    bias = next(float(value[0]) for name, value in state.items() if name.endswith("layer.bias"))
    logit = x @ ours.numpy()[0] + bias + center
    expected = np.logaddexp(0, -(2 * y - 1) * logit).mean()
    assert summary["metrics"]["train"]["nll_nats"] == pytest.approx(expected, rel=1e-9)
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(x, y).decision_function(x)
    best = np.logaddexp(0, -(2 * y - 1) * plain).mean()
    assert summary["baseline"]["train"]["nll_nats"] == pytest.approx(best, rel=1e-9)
    assert summary["distance"]["excess_objective"] == pytest.approx(expected - best, rel=1e-5)


def test_weights_in_rows_count_for_balance() -> None:
    y, weight = torch.tensor([0.0, 0.0, 1.0]).double(), torch.tensor([1.0, 2.0, 1.0]).double()
    loss = ClassWeights()
    loss.check(BernoulliHead())
    loss.learn(rows_of(y, weight))
    np.testing.assert_allclose(loss.weight, [4 / 6, 4 / 2])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_gradient_of_beta_nll_is_that_of_the_paper(beta: float) -> None:
    head = GaussianHead(scale="predicted", scale_floor=0.0)
    head.set_units(3.0, 2.0)
    eta = torch.tensor([[1.0, 0.3], [4.0, -1.0]], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([2.0, 3.5], dtype=torch.float64)
    (slope,) = torch.autograd.grad(BetaNll(beta)(head, eta, y).sum(), eta)
    loc, sigma = eta.detach().numpy()[:, 0], np.exp(eta.detach().numpy()[:, 1])
    residual = y.numpy() - loc
    # Seitzer et al. (2022), equation 6, for a target in units of its spread.
    factor = (sigma / 2.0) ** (2 * beta)
    expected = np.stack([-factor * residual / sigma**2, factor * (1 - residual**2 / sigma**2)], 1)
    np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_gradients_agree_with_differences() -> None:
    eta, y = classes(4)
    for loss in (LabelSmoothing(0.2), Focal(1.5)):
        for k in range(4):

            def value(point: np.ndarray, k: int = k, loss: Loss = loss) -> float:
                return float(loss(CategoricalHead(3), torch.from_numpy(point)[None], y[k : k + 1]))

            leaf = eta[k : k + 1].clone().requires_grad_()
            (slope,) = torch.autograd.grad(loss(CategoricalHead(3), leaf, y[k : k + 1]).sum(), leaf)
            np.testing.assert_allclose(slope[0], approx_fprime(eta[k].numpy(), value), atol=1e-5)


@pytest.mark.parametrize("loss", [LabelSmoothing(), Focal(), ClassWeights()])
@pytest.mark.parametrize("head", [GaussianHead(), PoissonHead(), LaplaceHead()])
def test_tweaks_of_classes_refuse_numbers(loss: Loss, head: Head) -> None:
    with pytest.raises(UsageError, match="expected head=bernoulli, categorical or ordinal, or loss=plain"):
        loss.check(head)


def test_settings_and_heads_that_do_not_fit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for head in (GaussianHead(), LaplaceHead("predicted")):
        with pytest.raises(UsageError, match="expected head=heteroscedastic"):
            BetaNll().check(head)
    with pytest.raises(UsageError, match="expected 3 numbers"):
        ClassWeights([1.0, 2.0]).check(CategoricalHead(3))
    for make in (lambda: LabelSmoothing(1.0), lambda: Focal(-1.0), lambda: BetaNll(1.5), lambda: ClassWeights([-1.0])):
        with pytest.raises(UsageError, match=r"loss\.\w+="):
            make()
    where = f"run_dir={tmp_path / 'r'}"
    assert run(["train", "loss=label_smoothing", where]) == 2
    assert "the head predicts a Gaussian" in capfd.readouterr().err
    assert run(["train", "loss=beta_nll", "head=heteroscedastic", "batch=full", "optimizer=lbfgs", where]) == 2
    assert "expected optimizer=adam or sgd" in capfd.readouterr().err
    assert run(["train", "loss=beta_nll", "head=heteroscedastic", "uncertainty=laplace", where]) == 2
    assert "expected loss=plain" in capfd.readouterr().err
    assert not (tmp_path / "r").exists()


def test_what_was_descended_is_said_wherever_a_run_is_shown(
    tmp_path: Path, table: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    common = ["train", "head=bernoulli", "data=csv", f"data.path={table('bernoulli')}", "data.target=y"]
    common += ["model=linear", "trainer.max_epochs=3", "logger=none"]
    assert run([*common, "loss=focal", "loss.gamma=1.5", f"run_dir={tmp_path / 's/a'}"]) == 0
    out = capfd.readouterr().out
    assert "loss=focal(gamma=1.5)" in out
    assert "every NLL here is the plain one" in out
    assert "exact optimum" not in out
    assert "focal(gamma=1.5)" in (tmp_path / "s/a/report.html").read_text(encoding="utf-8")
    assert run([*common, "report=false", "plots=false", f"run_dir={tmp_path / 's/b'}"]) == 0
    assert "loss=" not in capfd.readouterr().out
    assert summary_of(tmp_path / "s/b")["loss"] == "plain"
    assert run(["compare", f"runs={tmp_path / 's'}"]) == 0
    assert "focal(gamma=1.5)" in capfd.readouterr().out
    assert run(["evaluate", f"run={tmp_path / 's/a'}"]) == 0
