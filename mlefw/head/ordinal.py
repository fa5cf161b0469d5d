"""The ordinal head: proportional odds over ordered classes."""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, pad

from mlefw import inverse_link
from mlefw.distribution.link import SHARE
from mlefw.errors import UsageError
from mlefw.head.base import FactorizedHead
from mlefw.head.head import Start


class Ordered(TorchCategorical):
    """Distribution over K ordered classes by log-probabilities (*batch, K), accurate near probability one."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__(logits=scores, validate_args=False)
        self.scores = scores

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,)."""
        return self.scores.gather(-1, value.long().unsqueeze(-1)).squeeze(-1)

    def crps(self, y: Tensor) -> Tensor:
        """Ranked probability score, (*batch,): squared differences of cumulative probabilities (Epstein, 1969)."""
        below = self.scores.exp().cumsum(-1)[..., :-1]
        reached = y.unsqueeze(-1) <= torch.arange(below.shape[-1], device=y.device)
        return (below - reached.to(below.dtype)).square().sum(-1)


class OrdinalHead(FactorizedHead):
    """A class among K ordered ones: proportional odds, with K − 1 thresholds on one latent scale.

    Choose it for grades, ratings and stages: each feature has one coefficient rather than K − 1, whose odds ratio
    holds at every threshold. The order of text labels is a setting: data.labels=[low, middle, high].

    Domain: y in {0, …, K − 1}, the position of the label in its order.
    Link: P(y < k) = F(threshold_k − eta), F being the logistic distribution function, or by `link` the normal one
        (probit), that of least (cloglog) or greatest extreme values (loglog), or Cauchy's (cauchit); threshold_1 = 0,
        so that the intercept is minus the first threshold of other programs; threshold_k = threshold_(k−1) + gap_k
        with gap_k = exp(eta_k).
    NLL: −log(F(threshold_(y+1) − eta) − F(threshold_y − eta)), without a difference of near numbers.

    Source: McCullagh (1980); convex in eta and thresholds (Pratt, 1981).
    """

    also_known_as: ClassVar = "proportional odds, cumulative logit, ordered logit, ordered probit"
    target: ClassVar = "ordered"

    def __init__(self, num_classes: int, start: Start = "null", link: str = "logit") -> None:
        if link not in SHARE:
            raise UsageError(f"head.link={link!r}: expected one of {', '.join(SHARE)}")
        if num_classes < 2:
            raise UsageError(f"head=ordinal needs at least 2 classes, the target has {num_classes}")
        gaps = [f"gap_{k}" for k in range(2, num_classes)]
        self.inverse_links = {"logit": inverse_link.identity} | dict.fromkeys(gaps, inverse_link.exp)  # type: ignore[misc]
        sources: dict[str, Any] = {"logit": "predicted"} | dict.fromkeys(gaps, "shared")
        super().__init__(start=start, **sources)
        self.num_classes, self.link_name = num_classes, link
        # Convex in eta and thresholds for a log-concave latent density (Pratt, 1981).
        self.unimodal = SHARE[link].log_concave
        self.convex = num_classes == 2 and self.unimodal
        self.support = constraints.integer_interval(0, num_classes - 1)

    def set_units(self, mean: float, spread: float) -> None:
        """Do nothing: log-odds have no unit."""

    def rough(self, mean: float, spread: float) -> dict[str, float]:
        """Rough parameters: thresholds at equal distances, and a location from the mean class."""
        return {"logit": 1.5 * (mean - 0.5)} | {name: 1.5 for name in self.shared_names}

    def build(self, logit: Tensor, **gaps: Tensor) -> Ordered:  # type: ignore[override]
        """The distribution for the latent location and the gaps between thresholds, each (*batch,)."""
        widths = torch.stack([gap.expand_as(logit) for gap in gaps.values()], -1) if gaps else logit[..., None][..., :0]
        link = SHARE[self.link_name]
        above = link.log_odds(_thresholds(widths) - logit.unsqueeze(-1))
        # The gaps between log-odds; under a logit these are the widths themselves, without a difference.
        apart = widths if self.link_name == "logit" else above.diff(dim=-1)
        inner = logsigmoid(above[..., 1:]) + logsigmoid(-above[..., :-1]) + torch.log(-torch.expm1(-apart))
        ends = logsigmoid(above[..., :1]), logsigmoid(-above[..., -1:])
        return Ordered(torch.cat([ends[0], inner, ends[1]], -1))

    def information(self, eta: Tensor) -> Tensor:
        """The expected information Σ_k (∂p_k / ∂eta)(∂p_k / ∂eta)ᵀ / p_k in a complete eta."""
        widths, link = eta[..., 1:].exp(), SHARE[self.link_name]
        at = _thresholds(widths) - eta[..., :1]
        above = link.log_odds(at)
        density = torch.exp(logsigmoid(above) + logsigmoid(-above) + link.log_slope(at, above))
        lower = torch.ones(above.shape[-1], above.shape[-1], dtype=eta.dtype, device=eta.device).tril(-1)[:, :-1]
        moved = torch.cat([-torch.ones_like(above).unsqueeze(-1), widths.unsqueeze(-2) * lower], -1)
        slopes = pad(density.unsqueeze(-1) * moved, (0, 0, 1, 1)).diff(dim=-2)
        p = self.build(**self.params(eta)).probs.clamp(min=torch.finfo(eta.dtype).tiny)
        return slopes.mT @ (slopes / p.unsqueeze(-1))

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """Twice the NLL, (*batch,): the NLL of a perfect prediction of one outcome is 0."""
        return 2 * self.nll_complete(eta, y)


def _thresholds(widths: Tensor) -> Tensor:
    """The thresholds, (*batch, K − 1), the first one zero, from the gaps (*batch, K − 2)."""
    return pad(widths.cumsum(-1), (1, 0))
