"""What a model predicts of each row as numbers with names: a mean or probabilities, and parameters of the head."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution

from mlefw.distribution.censored import Censored
from mlefw.distribution.joint import Joint
from mlefw.distribution.trials import GivenTrials
from mlefw.head.base import FactorizedHead
from mlefw.objective.objective import etas
from mlefw.rows.rows import Rows
from mlefw.run.checkpoint import Trained

_MOST_LABELS = 30
"""Most labels of a target whose probabilities are among the quantities."""


def quantities(trained: Trained, rows: Rows) -> dict[str, np.ndarray]:
    """What the model predicts of each row, by name, (n,): mean or probabilities, and parameters of the head."""
    parts = [_of_block(trained, part, eta) for part, eta in etas(trained.objective, rows)]
    return {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}


@torch.no_grad()
def _of_block(trained: Trained, rows: Rows, eta: Tensor) -> dict[str, Tensor]:
    head = getattr(trained.objective.head, "head", trained.objective.head)
    distribution = trained.objective.head(eta)
    distribution = distribution.given(rows.y[..., 1]) if isinstance(distribution, GivenTrials) else distribution
    found = dict[str, Tensor]()
    marginals: Sequence[Distribution] = (
        distribution.marginals if isinstance(distribution, Joint) and not isinstance(distribution, Censored) else []
    )
    for target, one in zip(trained.schema.targets, marginals or [distribution], strict=False):
        prefix = f"{target.name}: " if marginals else ""
        found |= {f"{prefix}{name}": value for name, value in _summary(one, target.labels).items()}
    if isinstance(head, FactorizedHead) and not marginals and not isinstance(distribution, Bernoulli):
        params = head.params(head.complete(eta))
        known = [name for name in head.eta_names if not torch.equal(params[name], found.get("mean", eta[..., :0]))]
        found |= {name: params[name] for name in known}
    return found


def _summary(distribution: Distribution, labels: Sequence[str] | None) -> dict[str, Tensor]:
    """The mean of a number, or the probabilities of labels: of two only the second one's."""
    if isinstance(distribution, Censored):
        distribution = distribution.latent
    if labels is None:
        return {"mean": distribution.mean}
    if isinstance(distribution, Bernoulli):
        return {f"P({labels[1]})": distribution.probs}
    assert isinstance(distribution, Categorical)
    probs = distribution.probs
    return {f"P({label})": probs[..., k] for k, label in enumerate(labels[:_MOST_LABELS])}
