"""Runs with every head, as an export takes them: a model with given weights, and a table of rows."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mlefw.configuration.groups import members
from mlefw.configuration.read import read_settings, settings_of
from mlefw.objective.objective import Objective
from mlefw.prior.none import NoPrior
from mlefw.reading.table import Table
from mlefw.rows.standardize import Standardized
from mlefw.run import build
from mlefw.run.checkpoint import Trained
from mlefw.run.network import build_model
from mlefw.schema.feature import Feature
from mlefw.schema.schema import Schema
from mlefw.schema.target import Target

SETTINGS = {
    "multitask": ("head.tasks.a=gaussian", "head.tasks.b=poisson"),
    "histogram": ("head.edges=[-2,-1,0,1,2]",),
}
TWO = ("multitask", "multivariate_gaussian", "censored")
"""Heads of two target columns."""
HEADS = tuple(members("head"))
QUANTILES = (
    *("gaussian", "gaussian_fixed", "heteroscedastic", "laplace", "logistic", "loglogistic", "lognormal", "weibull"),
    *("exponential", "histogram", "quantile", "quantiles", "student_t", "gamma", "multivariate_gaussian", "censored"),
)
"""Heads whose quantiles are exported."""
LABELS = ("bernoulli", "categorical", "ordinal")
"""Heads whose targets have labels, which have no quantiles."""
REFUSED = {"transformation": "found by a search"}
"""Heads that are not exported, and words of the reason."""


def trained_of(name: str, model: str = "mlp", *more: str) -> tuple[Trained, Table]:
    """A model of three features in 64 bit, with random weights, and ten rows."""
    given = [f"head={name}", f"model={model}", *SETTINGS.get(name, ()), *more]
    config = settings_of(read_settings("train", given, [], []))
    kind = build.head_kind(config.head).target
    labels = {"binary": ("no", "yes"), "labels": ("p", "q", "r"), "ordered": ("p", "q", "r")}.get(kind)
    targets = tuple(Target(one, kind, labels) for one in ("a", "b")[: 2 if name in TWO else 1])
    head = build.head_of(config.head, targets).double()
    trials = "m" if head.takes_trials and head.event_shape else None
    facts: dict[str, Any] = {"exposure": "t"} if head.log_link else {"offset": "o"}
    features = (Feature("u", "numeric", means=(0.0,)), Feature("g", "category", ("x", "y", "z"), (0.2, 0.3)))
    schema = Schema(targets, features, bounds=name == "censored", trials=trials, **facts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_model(config.model, schema.row_shape, head.eta_dim).double()
        for p in (*network.parameters(), head.shared):
            torch.nn.init.normal_(p, std=0.3)
        # A shared scale below one, for which a log-logistic distribution has a mean.
        head.shared.data -= 1.0
        if head.held_columns:
            head.center.fill_(3.0)
    statistics = torch.tensor([0.5, 0.2, 0.3]).double(), torch.tensor([2.0, 0.4, 0.5]).double()
    objective = Objective(Standardized(network, *statistics), head, NoPrior(), 100.0).eval()
    random = np.random.default_rng(0)
    columns = {"u": random.normal(size=10), "g": np.array(list("xyzxyzxyzx"), dtype=object)}
    columns |= {"t": random.uniform(0.5, 2, 10), "o": random.normal(size=10)}
    columns["m"] = random.integers(1, 9, 10).astype(float)
    return Trained(objective, schema, config, Path("none.ckpt")), Table(columns, "ten rows")
