"""Every message on the page of questions is the one that the program prints, for the command that stands there."""

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT
from pages import blocks

from mlefw.cli import run

CASES = [text for info, text in blocks(ROOT / "docs" / "faq.md") if info == "console"]
CODES = {"There is no finite estimate": 0, "Training diverged": 3}
"""The exit code of each question that is not of a mistake."""


def told(command: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and standard error of a command line."""
    program, *arguments = shlex.split(command)
    assert program == "mlefw"
    with warnings.catch_warnings():
        warnings.resetwarnings()
        code = run(arguments)
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the page tells of."""
    here = tmp_path_factory.mktemp("faq")
    random = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            **{"age": random.integers(18, 80, 60), "power": random.normal(size=60).round(3)},
            **{"region": ["city", "coast"] * 30, "years": 0.5, "claims": random.poisson(0.5, 60)},
            **{
                "profit": random.normal(size=60).round(2),
                "risk": ["low", "mid", "high"] * 20,
                "sold": ["no", "yes"] * 30,
            },
        }
    )
    rows.to_csv(here / "claims.csv", index=False)
    rows.assign(age=rows["age"].where(rows.index != 3)).to_csv(here / "gaps.csv", index=False)
    rows.assign(years=rows["years"].where(rows.index != 5, 0)).to_csv(here / "zero.csv", index=False)
    rows[:3].to_csv(here / "tiny.csv", index=False)
    rows[:9].assign(region=["hills" if row == 2 else "city" for row in range(9)]).to_csv(here / "new.csv", index=False)
    given = ["data=csv", f"data.path={here}/claims.csv", "data.target=claims", "data.features=[age,region]"]
    few = ["trainer.max_epochs=1", "baseline=none", "logger=none", "report=false", "plots=false", "model=linear"]
    with warnings.catch_warnings():
        warnings.resetwarnings()
        assert run(["train", "head=poisson", *given, *few, f"run_dir={here}/run"]) == 0
    return here


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\W+", " ", case.split("\n")[0])[3:63])
def test_a_message_is_what_the_program_says(
    case: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "accelerator=gpu" in case and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("this machine has a GPU, and the message is of one that has none")
    monkeypatch.chdir(folder)
    command, *lines = case.rstrip("\n").split("\n")
    code, said = told(command.removeprefix("$ "), capsys)
    # An ellipsis stands for anything on its line, except where the program itself prints one.
    pattern = "\n".join(re.escape(line).replace("…", ".*") for line in lines)
    assert re.search(f"^{pattern}$", said, re.M), said
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8")
    title = re.findall(r"^### (.*)$", page[: page.index(case)], re.M)[-1]
    assert code == CODES.get(title, 2)


def test_there_are_enough() -> None:
    assert len(CASES) >= 20
