"""`mlefw explain` and `model.explain`: what is exchanged together, exact sums, files, and what is refused."""

import base64
import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mlefw
from mlefw.cli import run
from mlefw.errors import UsageError
from mlefw.run.feature_rows import FeatureRows
from mlefw.run.from_memory import table_of
from mlefw.system.number_format import number as number_text

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def frame(size=240):
    random = np.random.default_rng(1)
    age, region = random.uniform(20, 60, size), random.choice(["north", "south", "west"], size)
    bonus = np.where(random.random(size) < 0.1, np.nan, random.normal(size=size))
    shift = pd.Series(region).map({"north": 0.0, "south": 2.0, "west": -1.0}).to_numpy()
    y = 0.1 * age + shift + np.nan_to_num(bonus) + 0.5 * random.normal(size=size)
    return pd.DataFrame({"age": age, "region": region, "bonus": bonus, "y": y})


FAST = ("report=false", "plots=false", "batch=full", "optimizer=lbfgs", "model=linear", "data.missing=impute")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explain")
    data = frame()
    data.to_csv(folder / "d.csv", index=False)
    mlefw.fit(data, "y", *FAST, run_dir=folder / "line")
    formula = "y ~ bs(age, df=4) * C(region) + bonus"
    mlefw.fit(data, "y", *FAST, f"formula={formula}", run_dir=folder / "formula")
    network = ("head=heteroscedastic", "model.hidden=[4]", "trainer.max_epochs=2", "data.missing=impute")
    mlefw.fit(data, "y", *network, *FAST[:2], run_dir=folder / "network")
    return folder


def test_a_source_is_one_feature_under_its_own_name(runs):
    for name in ("line", "formula", "network"):
        found = mlefw.load(runs / name).explain(frame(), repeats=2).tables()
        assert sorted(found["nats"]["feature"]) == ["age", "bonus", "region"]
        assert min(found["nats"]["marginal_nats"]) > -0.1
        pairs = zip(*(found["effects"][key] for key in ("level", "feature")), strict=True)
        levels = [level for level, feature in pairs if feature == "region"]
        assert set(levels) == {"north", "south", "west"}


def test_the_report_of_a_run_explains_it(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = (*FAST[2:], "logger=none", "baseline=none", "explanation=true")
    model = mlefw.fit(frame(), "y", *settings, test=frame(80), run_dir="r")
    stated, page = json.loads(Path("r/explain.json").read_text()), Path("r/report.html").read_text()
    other = model.explain(frame(80)).content()
    assert stated["num_rows"] == other["num_rows"] == 80
    for table in ("nats", "terms"):
        found, wanted = pd.DataFrame(stated[table]), pd.DataFrame(other[table])
        pd.testing.assert_frame_equal(found, wanted, rtol=1e-5)
    # Pictures, and a number of each table, are on the page.
    assert "What the forecasts rest on: test rows" in page
    for name in ("nats", "effects_0"):
        picture = Path(f"r/plots/explained_{name}.png").read_bytes()
        assert base64.b64encode(picture).decode() in page
    for number in (stated["nats"][0]["marginal_nats"], stated["terms"][0]["sd"]):
        assert f"<td>{number_text(number)}</td>" in page


def test_a_run_whose_rows_cannot_be_explained_says_so_before_it_begins(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    settings = ("data=digits_images", "head=categorical", "run_dir=r")
    assert run(["train", "explanation=true", *settings]) == 2
    assert "explanation=true: " in capsys.readouterr().err
    assert not Path("r").exists()


def test_it_is_drawn_by_seed(runs):
    model = mlefw.load(runs / "line")
    first, again, other = (model.explain(frame(), repeats=2, seed=seed).tables() for seed in (0, 0, 1))
    assert first == again
    assert first["nats"] != other["nats"]


def test_an_exchange_of_design_columns_is_one_of_the_column(runs, monkeypatch):
    trained = mlefw.load(runs / "line")._trained
    table = table_of(trained, frame(), prediction=False)
    quick, slow = FeatureRows(trained, table), FeatureRows(trained, table)
    monkeypatch.setitem(slow.__dict__, "spans", None)
    donor = np.random.default_rng(0).permutation(table.num_rows)
    for name in quick.names:
        assert torch.equal(quick.from_donors(name, donor).x, slow.from_donors(name, donor).x)
    values = np.linspace(0, 1, table.num_rows)
    assert torch.equal(quick.with_values("bonus", values).x, slow.with_values("bonus", values).x)


def test_of_a_line_the_sum_over_terms_is_exact(runs):
    model, data = mlefw.load(runs / "line"), frame()
    found = {row["term"]: row for row in model.explain(data, repeats=1).content()["terms"]}
    step = data.assign(age=data["age"] + 1)
    slope = (model.distribution(step).mean - model.distribution(data).mean).double()
    assert float(slope.std()) < 1e-6
    contribution = float(slope.mean()) * (data["age"] - data["age"].mean())
    assert found["age"]["sd"] == pytest.approx(float(contribution.std(ddof=0)), rel=1e-6)
    assert found["age"]["lowest"] == pytest.approx(float(contribution.min()), rel=1e-6)
    held = data.assign(age=data["age"].mean())
    distributions = model.distribution(held), model.distribution(data)
    y = torch.tensor(data["y"].to_numpy())
    rise = distributions[1].log_prob(y) - distributions[0].log_prob(y)
    assert found["age"]["nats"] == pytest.approx(float(rise.mean()), rel=1e-6)
    assert found["age"]["se"] == pytest.approx(float(rise.std()) / np.sqrt(len(data)), rel=1e-6)
    assert not mlefw.load(runs / "network").explain(data, repeats=1).terms


def test_effects_of_a_line_are_lines_in_units_of_the_target(runs):
    model, data = mlefw.load(runs / "line"), frame()
    effects = [one for one in model.explain(data, repeats=1).effects if one.feature == "age"]
    assert [one.quantity for one in effects] == ["mean"]
    slope = np.diff(effects[0].effect) / np.diff(effects[0].at)
    step = data.assign(age=data["age"] + 1)
    expected = float((model.distribution(step).mean - model.distribution(data).mean).mean())
    np.testing.assert_allclose(slope, expected, rtol=1e-6)
    assert np.abs(effects[0].se).max() < 1e-6
    named = {one.quantity for one in mlefw.load(runs / "network").explain(data, repeats=1).effects}
    assert named == {"mean", "scale"}


def test_the_command_writes_a_page_and_tables(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = f"data.path={runs / 'd.csv'}"
    command = ["explain", f"run={runs / 'network'}", rows, "explain.repeats=2", "explain.max_rows=100"]
    assert run([*command, "output=e"]) == 0
    assert "carries most" in capsys.readouterr().out
    folder = tmp_path / "e"
    content = json.loads((folder / "explain.json").read_text(encoding="utf-8"))
    assert (content["num_rows"], content["num_known"], content["repeats"]) == (100, 240, 2)
    with (folder / "nats.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["feature"] for row in table] == [row["feature"] for row in content["nats"]]
    assert "base64" in (folder / "explain.html").read_text(encoding="utf-8")
    assert {file.name for file in folder.glob("*.png")} == {"nats.png", "effects_0.png", "effects_1.png"}
    assert run([*command, "output=e"]) == 2
    assert run([*command, "output=e", "overwrite=true"]) == 0


def test_rows_of_its_own_and_a_mixture(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = f"data.path={runs / 'd.csv'}"
    both = f"run=[{runs / 'line'},{runs / 'network'}]"
    assert run(["explain", both, rows, "explain.repeats=1", "output=m"]) == 0
    content = json.loads((tmp_path / "m/explain.json").read_text(encoding="utf-8"))
    assert {row["quantity"] for row in content["effects"]} == {"mean"}
    assert "terms" not in content


def test_classes_groups_and_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = frame(120).drop(columns="bonus").assign(firm=np.arange(120) // 6)
    data["y"] = np.where(data["y"] > data["y"].median(), "yes", "no")
    data.to_csv("d.csv", index=False)
    options = ("data=csv", "data.path=d.csv", "data.target=y", "data.group=firm", "head=bernoulli", "model=linear")
    assert run(["train", *options, "trainer.max_epochs=2", *FAST[:2], "run_dir=r"]) == 0
    assert run(["explain", "run=r", "split=train", "explain.repeats=1", "output=e"]) == 0
    content = json.loads(Path("e/explain.json").read_text(encoding="utf-8"))
    assert content["group"] == "firm"
    assert content["settings"]["rows"] == "train"
    assert {row["quantity"] for row in content["effects"]} == {"P(yes)"}
    assert run(["explain", "run=r", "split=train", "data.path=d.csv", "output=f"]) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("explain.max_rows=1", "at least 2"),
        ("explain.repeats=0", "at least 1"),
        ("explain.repeat=3", "repeats"),
        ("seed=1", "trained run"),
        ("output=no/such", "there is no directory"),
        ("head=poisson", "trained run"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(setting, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["explain", "run=nowhere", setting]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_text_and_arrays_are_refused_by_name(tmp_path):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(40, 2, 2)).astype("float32"), random.normal(size=40)
    model = mlefw.fit(x, y, *FAST[:2], "trainer.max_epochs=1", run_dir=tmp_path / "a")
    with pytest.raises(UsageError, match="arrays, images or text"):
        model.explain(x, y)


def test_an_unknown_setting_is_refused(runs):
    with pytest.raises(UsageError, match="there is no such setting"):
        mlefw.load(runs / "line").explain(frame(), rows=3)
