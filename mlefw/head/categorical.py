"""The categorical head: cross-entropy over classes."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import constraints, register_kl
from torch.nn.functional import cross_entropy

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.head import Start


class Categorical(TorchCategorical):
    """Categorical distribution whose log-mass keeps full relative precision near probability one."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits, validate_args=False)
        self.scores = logits

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-mass, (*batch,): −log1p(Σ over the other classes of exp(logit − largest)) − (largest − logit of y)."""
        largest, index = self.scores.max(dim=-1, keepdim=True)
        others = (self.scores - largest).exp().scatter(-1, index, 0.0).sum(-1)
        chosen = self.scores.gather(-1, value.long().unsqueeze(-1))
        return -torch.log1p(others) - (largest - chosen).squeeze(-1)


@register_kl(Categorical, Categorical)  # type: ignore[untyped-decorator]
def _divergence(p: Categorical, q: Categorical) -> Tensor:
    """KL(p, q), (*batch,), from log-probabilities; torch's own is infinite once a probability is below 1e-308."""
    log_p, log_q = p.scores.log_softmax(-1), q.scores.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


class CategoricalHead(Head):
    """A class among K, by K symmetric logits.

    Choose it for labels without an order. For two labels `bernoulli` is the equivalent model with one logit; for
    ordered labels `ordinal` needs far fewer coefficients.

    Domain: y in {0, …, K − 1}, the position of the label in sorted order.
    Link: probabilities = softmax(eta).
    NLL: logsumexp(eta) − eta_y.
    """

    also_known_as: ClassVar = "cross-entropy; softmax (multinomial logistic) regression"
    target: ClassVar = "labels"
    reference: ClassVar = 0
    has_narrow_nll: ClassVar = True
    convex = True

    def __init__(self, num_classes: int, start: Start = "null") -> None:
        if num_classes < 2:
            raise UsageError(f"head=categorical needs at least 2 classes, the target has {num_classes}")
        super().__init__(tuple(f"logits_{k}" for k in range(num_classes)), start=start)
        self.num_classes = num_classes
        self.support = constraints.integer_interval(0, num_classes - 1)

    def distribution(self, eta: Tensor) -> Categorical:
        """Categorical(logits = eta)."""
        return Categorical(eta)

    def narrow_nll(self, eta: Tensor, y: Tensor) -> Tensor:
        """logsumexp(eta) − eta_y, (*batch,), in 32 bit: its error is about 2e-7 nats."""
        nll = cross_entropy(eta.flatten(0, -2), y.flatten().long(), reduction="none")
        return nll.view(y.shape)

    def information(self, eta: Tensor) -> Tensor:
        """The variance diag(p) − p pᵀ: the link is canonical, so the observed information is the expected one."""
        p = eta.softmax(-1)
        return torch.diag_embed(p) - p.unsqueeze(-1) * p.unsqueeze(-2)

    def unit_deviance(self, eta: Tensor, y: Tensor) -> Tensor:
        """Twice the NLL, (*batch,): the NLL of a perfect prediction of one outcome is 0."""
        return 2 * self.nll_complete(eta, y)
