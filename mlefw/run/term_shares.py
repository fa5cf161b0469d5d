"""What each term adds to eta in a model that is a sum over terms."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from mlefw.objective.objective import etas
from mlefw.report.explanation import TermShare
from mlefw.run.feature_rows import FeatureRows
from mlefw.run.pooled import Pooled
from mlefw.score.permutation import standard_error

_ADDITIVE = 1e-6
"""Error, relative to the spread of eta, up to which eta counts as a sum over terms: that of 32-bit floats."""

_BLOCK = 16384
"""Rows whose NLL is computed at once."""


def term_shares(
    known: FeatureRows, nll: np.ndarray, weight: np.ndarray, group: np.ndarray | None
) -> Iterator[TermShare]:
    """What each term adds to each eta, where the model is a sum over terms; nothing of any other model."""
    trained, rows = known.trained, known.rows
    if isinstance(trained, Pooled):
        return
    objective = trained.objective
    mean = torch.from_numpy(weight / weight.sum()) @ rows.x.double()
    terms = _positions(known.schema.terms)

    def eta_of(x: Tensor) -> Tensor:
        return torch.cat([eta.double() for _, eta in etas(objective, rows._replace(x=x.to(rows.x.dtype)))])

    eta, centered = eta_of(rows.x), eta_of(mean.expand_as(rows.x))
    shares = {}
    for term, columns in terms.items():
        held = rows.x.clone()
        held[:, columns] = mean[columns].to(held.dtype)
        shares[term] = eta - eta_of(held)
    off = (sum(shares.values(), centered) - eta).abs().amax()
    spread = (eta - centered).abs().amax()
    if not bool(off <= _ADDITIVE * spread):
        return
    share = torch.from_numpy(weight / weight.sum())
    for term, values in shares.items():
        held_nll = torch.cat(
            [
                objective.head.nll(part, y)
                for part, y in zip((eta - values).split(_BLOCK), rows.y.split(_BLOCK), strict=True)
            ]
        )
        rise = held_nll.detach().double().numpy() - nll
        nats = float(weight @ rise / weight.sum())
        se = standard_error(rise - nats, weight, group)
        for k, name in enumerate(objective.head.eta_names):
            sd = float((share @ (values[:, k] - share @ values[:, k]).square()).sqrt())
            yield TermShare(term, name, sd, float(values[:, k].min()), float(values[:, k].max()), nats, se)


def _positions(terms: Mapping[str, Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """The design columns of each term, whichever parameters it is in."""
    found: dict[str, list[int]] = {}
    for of_parameter in terms.values():
        for term, columns in of_parameter.items():
            found[term] = sorted({*found.get(term, []), *columns})
    return found
