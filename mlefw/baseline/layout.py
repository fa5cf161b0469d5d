"""The layout of theta: which coefficient of which column of eta stands where, and which are free."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlefw.baseline.feature_map import FeatureMap
from mlefw.baseline.quadratic import RandomBlock, whole_precision
from mlefw.baseline.work import Meter
from mlefw.head.base import Head
from mlefw.prior.base import Prior
from mlefw.rows.rows import Rows


@dataclass(frozen=True)
class Layout:
    """A linear model's head, prior and rows, and how its coefficients stand in theta.

    theta holds, for each predicted eta column, a weight for each active feature, standardised as for the network, and
    a bias; then one raw number for each shared parameter: (eta_dim · (num_active + 1) + shared_dim,).

    Shapes: mean and scale, which standardise the features, (num_features,); active, the indices of the features in
    use, (num_active,). `population` is Σ w of the rows, `meter` the time limit of the solver at work. `features` is the
    map that made the columns from rows of arrays; None for tables, and without columns. `used` says which features,
    and in its last column whether an intercept, each predicted eta column has, (eta_dim, num_features + 1) booleans;
    None where all have all. What a column has not is zero in theta and not free; where a column has no intercept, the
    head's center and the means of its features are zero. `dropped` holds pairs of an eta column and a feature that were
    left out as collinear there. `blocks_of_terms` are the coefficients with a normal prior of their own, in units of
    their columns, and `rho` the logarithms of its precisions, (sum of num_scales,); without them it is not there.
    """

    head: Head
    rows: Rows
    mean: Tensor
    scale: Tensor
    prior: Prior
    active: Tensor
    population: float
    block_rows: int | None = None
    meter: Meter | None = None
    features: FeatureMap | None = None
    used: Tensor | None = None
    dropped: tuple[tuple[int, int], ...] = ()
    blocks_of_terms: tuple[RandomBlock, ...] = ()
    rho: Tensor | None = None

    @property
    def num_active(self) -> int:
        """Number of features in use."""
        return len(self.active)

    @cached_property
    def mask(self) -> Tensor | None:
        """`used` of the active features and the intercept, (eta_dim, num_active + 1); None where all is used."""
        if self.used is None:
            return None
        mask = self.used[:, torch.cat([self.active, torch.tensor([self.used.shape[1] - 1])])]
        return None if bool(mask.all()) else mask

    @property
    def is_plain(self) -> bool:
        """Whether every eta column has all active features and an intercept, and only the first has an offset."""
        return self.mask is None and self.rows.offset.ndim == 1 and not self.blocks_of_terms

    def places(self) -> list[Tensor]:
        """Positions in theta of the penalised coefficients of each of `blocks_of_terms`."""
        at = {int(j): k for k, j in enumerate(self.active)}
        width = self.num_active + 1
        return [torch.tensor([block.column * width + at[j] for j in block.features]) for block in self.blocks_of_terms]

    @cached_property
    def precision(self) -> Tensor | None:
        """The precision of theta under the priors of `blocks_of_terms`, (size, size), in nats; None without any."""
        if self.rho is None or not self.blocks_of_terms:
            return None
        found = whole_precision(self.blocks_of_terms, self.rho, self.places(), self.size)
        units = torch.ones(self.size, dtype=torch.float64)
        table = units[: self.size - self.head.shared_dim].view(self.head.eta_dim, -1)
        # A coefficient in its own units is gain · raw / scale.
        table[:, :-1] = self.head.gain[: self.head.eta_dim].unsqueeze(1) / self.scale[self.active]
        return units * found * units.unsqueeze(1)

    def design_columns(self, k: int) -> Tensor:
        """Positions in a design of the columns that eta column k has; of a shared parameter the intercept, (count,)."""
        if k >= self.head.eta_dim:
            return torch.tensor([self.num_active])
        every = torch.arange(self.num_active + 1)
        return every if self.mask is None else every[self.mask[k]]

    def plain_columns(self, k: int) -> list[int]:
        """Positions in a design of the columns of eta column k that have no prior of their own."""
        penalised = {j for block in self.blocks_of_terms if block.column == k for j in block.features}
        active = [*self.active.tolist(), -1]
        return [j for j in self.design_columns(k).tolist() if active[j] not in penalised]

    @cached_property
    def has_intercept(self) -> Tensor:
        """Whether each column of the complete eta has an intercept, (eta_dim + shared_dim,)."""
        has = torch.ones(self.head.eta_dim + self.head.shared_dim, dtype=torch.bool)
        if self.mask is not None:
            has[: self.head.eta_dim] = self.mask[:, -1]
        return has

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.head.eta_dim * (self.num_active + 1) + self.head.shared_dim

    @property
    def free(self) -> Tensor:
        """Whether each entry of theta is free, (size,).

        Where a common shift of eta columns changes nothing, the reference column is held at zero; under a prior, which
        determines the weights, only its bias is.
        """
        free = torch.ones(self.size, dtype=torch.bool)
        table = free[: self.head.eta_dim * (self.num_active + 1)].view(self.head.eta_dim, -1)
        for reference, _ in self.head.shifts:
            table[reference, 0 if self.prior.flat else self.num_active :] = False
        if self.mask is not None:
            table &= self.mask
        return free

    def split(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weights (eta_dim, num_active), biases (eta_dim,), shared raw values (shared_dim,)."""
        table = theta[: self.size - self.head.shared_dim].view(self.head.eta_dim, self.num_active + 1)
        return table[:, :-1], table[:, -1], theta[self.size - self.head.shared_dim :]

    def with_scale(self, beta: Tensor, raw_scale: float) -> Tensor:
        """Theta of a location-scale head, from the location's weights and bias and, if it is learnt, a raw scale."""
        if not self.head.shared_dim:
            return beta
        log_scale = math.log(raw_scale * float(self.head.gain[0]))
        shared = (log_scale - float(self.head.center[1])) / float(self.head.gain[1])
        return torch.cat([beta, beta.new_tensor([shared])])
