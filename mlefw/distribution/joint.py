"""The joint distribution of several targets, some of which may be missing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, kl_divergence, register_kl
from torch.types import _size


class Joint(Distribution):
    """Several targets that are independent given x; a missing target is NaN and adds nothing to the log-density.

    Shapes: each marginal (*batch,), y (*batch, num_targets).

    Args:
        marginals: the distribution of each target.
        stand_ins: a value in each target's support, which replaces NaN where densities are evaluated and then dropped.
        batch_shape: the batch shape of each marginal.
    """

    arg_constraints = {}  # noqa: RUF012 - torch asks for it, and types it as one of an instance

    def __init__(self, marginals: Sequence[Distribution], stand_ins: Sequence[float], batch_shape: torch.Size) -> None:
        self._given, self.stand_ins = tuple(marginals), tuple(stand_ins)
        super().__init__(batch_shape, torch.Size([len(stand_ins)]), validate_args=False)

    @property
    def marginals(self) -> Sequence[Distribution]:
        """The marginal distribution of each target, (*batch,)."""
        return self._given

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, num_targets)."""
        return torch.stack([marginal.mean for marginal in self.marginals], -1)

    @property
    def variance(self) -> Tensor:
        """The variance, (*batch, num_targets)."""
        return torch.stack([marginal.variance for marginal in self.marginals], -1)

    def of_target(self, value: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The values of one target, its stand-in where missing; and whether each is observed; both (*batch,)."""
        is_label = isinstance(self.marginals[index], Categorical)
        return one_target(value, index, self.stand_ins[index], is_label)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density summed over the observed targets, (*batch,)."""
        parts = []
        for index, marginal in enumerate(self.marginals):
            column, observed = self.of_target(value, index)
            parts.append(torch.where(observed, marginal.log_prob(column), 0.0))
        return torch.stack(parts, -1).sum(-1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch, num_targets)."""
        drawn = [marginal.sample(sample_shape) for marginal in self.marginals]
        return torch.stack([value.to(self.mean.dtype) for value in drawn], -1)


def one_target(y: Tensor, index: int, stand_in: float, is_label: bool) -> tuple[Tensor, Tensor]:
    """A column of y (*batch, num_targets), `stand_in` where it is NaN; and whether each value is observed.

    A column of labels is int64.
    """
    column = y[..., index]
    observed = ~column.isnan()
    column = torch.where(observed, column, stand_in)
    return (column.long() if is_label else column), observed


@register_kl(Joint, Joint)  # type: ignore[untyped-decorator]
def _divergence(p: Joint, q: Joint) -> Tensor:
    parts = [kl_divergence(one, other) for one, other in zip(p.marginals, q.marginals, strict=True)]
    return torch.stack(parts, -1).sum(-1)
