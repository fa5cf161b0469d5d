"""Linear terms of each column of eta, beside a network for the columns that have no formula of their own."""

import torch
from torch import Tensor, nn

from mlefw.model.base import StartsAtEstimate


class TermsModel(nn.Module):
    """raw_k = Σ_j β_kj x_j + intercept_k for the columns k of a formula; a network of its own features for the others.

    Coefficients start at zero, so that training starts at the null model.

    Shapes: x (*batch, num_features) → raw (*batch, eta_dim).

    Args:
        used: which features, and in its last column whether an intercept, each column of eta has,
            (eta_dim, num_features + 1) booleans.
        network: maps the features of `owned` columns to their raw output, (*batch, len(owned)); None where all columns
            are linear.
        owned: the columns of eta that the network gives.
        inputs: a map of these features to the inputs of the network, an `mlefw.inputs.base.Inputs`; None for none.
        is_penalised: whether some coefficients have a normal prior of their own (smooth terms, effects of groups). It
            is set before training; the weights of these coefficients are then in units in which the prior is standard,
            so that training is as well conditioned where a term has nearly no effect.
    """

    root: Tensor
    penalised: Tensor
    used: Tensor
    features: Tensor

    def __init__(
        self,
        used: Tensor,
        network: nn.Module | None = None,
        owned: tuple[int, ...] = (),
        inputs: nn.Module | None = None,
        is_penalised: bool = False,
    ) -> None:
        super().__init__()
        linear = used.clone()
        linear[list(owned)] = False
        self.owned, self.network, self.inputs = owned, network, inputs
        self.register_buffer("used", linear, persistent=False)
        self.register_buffer("features", network_features(used, owned), persistent=False)
        # Two dimensions, because priors are on weights, which have two or more.
        self.weight = nn.Parameter(torch.zeros(1, int(linear[:, :-1].sum())))
        self.bias = nn.Parameter(torch.zeros(int(linear[:, -1].sum())))
        size = self.weight.numel() if is_penalised else 0
        self.register_buffer("root", torch.eye(size, dtype=torch.float64))
        self.register_buffer("penalised", torch.zeros(size, dtype=torch.bool))

    def table(self) -> Tensor:
        """All coefficients with the intercepts last, (eta_dim, num_features + 1); zero where a column has none."""
        table = self.weight.new_zeros(self.used.shape)
        table[:, :-1] = table[:, :-1].masked_scatter(self.used[:, :-1], self.coefficients())
        table[:, -1] = table[:, -1].masked_scatter(self.used[:, -1], self.bias)
        return table

    @torch.no_grad()
    def set_precision(self, whole: Tensor) -> None:
        """Set the priors from the precision of all coefficients, (eta_dim · (num_features + 1),) squared."""
        at = torch.cat([self.used[:, :-1], torch.zeros_like(self.used[:, :1])], 1).reshape(-1)
        precision = whole[: len(at), : len(at)][at][:, at]
        self.penalised.copy_(precision.diagonal() > 0)
        pairs = self.penalised.unsqueeze(1) & self.penalised
        factor = torch.linalg.cholesky(precision[self.penalised][:, self.penalised])
        self.root.copy_(torch.eye(len(self.root), dtype=torch.float64))
        self.root[pairs] = torch.linalg.inv(factor).T.reshape(-1)

    @torch.no_grad()
    def load(self, weight: Tensor, bias: Tensor) -> None:
        """Take the coefficients out of weight (eta_dim, num_features) and bias (eta_dim,), without priors."""
        self.weight.copy_(weight[self.used[:, :-1]])
        self.bias.copy_(bias[self.used[:, -1]])
        self.root.copy_(torch.eye(len(self.root), dtype=torch.float64))
        self.penalised.zero_()

    @torch.no_grad()
    def start_linear_at(self, weight: Tensor, bias: Tensor) -> None:
        """Start the linear columns, and the network if it is a `StartsAtEstimate`, at an exact linear estimate.

        Shapes: weight (eta_dim, num_features), bias (eta_dim,), in float64 on the CPU.
        """
        known = weight[self.used[:, :-1]]
        self.weight.copy_(torch.linalg.solve(self.root, known) if self.root.numel() else known)
        self.bias.copy_(bias[self.used[:, -1]])
        if isinstance(self.network, StartsAtEstimate):
            self.network.start_at(weight[list(self.owned)][:, self.features], bias[list(self.owned)])

    def coefficients(self) -> Tensor:
        """The coefficients of the linear columns one after the other, (num_coefficients,)."""
        if not self.root.numel():
            return self.weight[0]
        return (self.root @ self.weight[0].to(self.root.dtype)).to(self.weight.dtype)

    def penalty(self) -> Tensor:
        """−log of the normal priors of smooth terms and effects of groups without its constant, a scalar in nats."""
        return 0.5 * self.weight[0][self.penalised].to(self.root.dtype).square().sum()

    def forward(self, x: Tensor) -> Tensor:
        """The raw output, (*batch, eta_dim)."""
        table = self.table()
        raw = nn.functional.linear(x, table[:, :-1], table[:, -1])
        if self.network is None:
            return raw
        z = x[..., self.features]
        found = self.network(z if self.inputs is None else self.inputs(z.double()).to(z.dtype))
        columns = list(raw.unbind(-1))
        for k, column in zip(self.owned, found.unbind(-1), strict=True):
            columns[k] = column.to(raw.dtype)
        return torch.stack(columns, -1)


def network_features(used: Tensor, owned: tuple[int, ...]) -> Tensor:
    """Positions of the features that some of the columns `owned` has."""
    return used[list(owned), :-1].any(0).nonzero().squeeze(1)
