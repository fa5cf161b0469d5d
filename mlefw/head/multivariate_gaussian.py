"""The multivariate Gaussian head: several targets whose noise is correlated."""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.distributions.transforms import Transform
from torch.types import _size

from mlefw import inverse_link
from mlefw.distribution.joint import Joint
from mlefw.errors import UsageError
from mlefw.head.gaussian import Gaussian
from mlefw.head.head import Start
from mlefw.head.multitask import JointHead


class MultivariateGaussian(Joint):
    """Normal distribution of D targets whose precision is T' T, T = diag(1 / scale) (I − coefficient).

    Each centred target is a linear combination of the centred targets before it plus independent noise with its
    `scale` (Pourahmadi, 1999).

    Shapes: loc, scale (*batch, D), coefficient (*batch, D, D), zero on and above the diagonal.
    """

    def __init__(self, loc: Tensor, scale: Tensor, coefficient: Tensor) -> None:
        self.loc, self.scale, self.coefficient = loc, scale, coefficient
        super().__init__((), (0.0,) * loc.shape[-1], loc.shape[:-1])

    @property
    def marginals(self) -> tuple[Gaussian, ...]:
        """The marginal distribution of each target, (*batch,)."""
        return self._normals

    @cached_property
    def _normals(self) -> tuple[Gaussian, ...]:
        columns = zip(self.loc.unbind(-1), self.variance.sqrt().unbind(-1), strict=True)
        return tuple(Gaussian(loc, scale, validate_args=False) for loc, scale in columns)

    @cached_property
    def scale_tril(self) -> Tensor:
        """The Cholesky factor of the covariance, (*batch, D, D)."""
        eye = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        noise = torch.diag_embed(self.scale)
        return torch.linalg.solve_triangular(eye - self.coefficient, noise, upper=False, unitriangular=True)

    @property
    def covariance(self) -> Tensor:
        """The covariance, (*batch, D, D)."""
        return self.scale_tril @ self.scale_tril.mT

    @property
    def mean(self) -> Tensor:
        """The mean, (*batch, D)."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The variance of each target, (*batch, D)."""
        return self.scale_tril.square().sum(-1)

    def standardised(self, residual: Tensor) -> Tensor:
        """T · residual, (*batch, D): independent standard normal numbers where the distribution is true."""
        return (residual - (self.coefficient * residual.unsqueeze(-2)).sum(-1)) / self.scale

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density, (*batch,)."""
        u = self.standardised(value - self.loc)
        return -(0.5 * u * u + self.scale.log() + 0.5 * math.log(2 * math.pi)).sum(-1)

    def sample(self, sample_shape: _size = torch.Size()) -> Tensor:  # noqa: B008
        """Draws, (*sample_shape, *batch, D)."""
        noise = torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        with torch.no_grad():
            return self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)


@register_kl(MultivariateGaussian, MultivariateGaussian)  # type: ignore[untyped-decorator]
def _divergence(p: MultivariateGaussian, q: MultivariateGaussian) -> Tensor:
    moved = torch.stack([q.standardised(column) for column in p.scale_tril.unbind(-1)], -1).square().sum((-1, -2))
    distance = q.standardised(p.loc - q.loc).square().sum(-1)
    return 0.5 * (moved + distance - p.loc.shape[-1]) + (q.scale.log() - p.scale.log()).sum(-1)


class MultivariateGaussianHead(JointHead):
    """Several numbers whose noise is correlated, with a full covariance, the same for all rows or predicted.

    Choose it where the errors of the targets of a row are correlated: only then are forecasts of sums and differences
    of targets, or of one target given another, calibrated. With a shared covariance the linear estimate of the means
    is least squares, target by target (Zellner, 1962), at a higher likelihood. A predicted covariance takes
    D (D + 1) / 2 more network outputs.

    Domain: y real, (D,).
    Link: loc_d = eta_d; scale_d = max(exp(eta), floor), the noise of target d given those before it, the floor being
        `scale_floor` · sd(y_d); coefficient_dj = eta, of target d on target j before it. The precision is T' T with the
        Cholesky factor T = diag(1 / scale) (I − coefficient). The order of the targets changes no distribution.
    NLL: ½ D log 2π + Σ log scale_d + ½ |T (y − loc)|².

    Args:
        targets: names of the targets, from the data.
        covariance: `shared` or `predicted`.
        scale_floor: least scale of a target given those before it, as a share of the target's standard deviation.
        start: where training starts, `null` or `zero`.
    """

    also_known_as: ClassVar = "multivariate Gaussian NLL; seemingly unrelated regression with the same features"
    support = constraints.independent(constraints.real, 1)

    def __init__(
        self,
        targets: Sequence[str],
        covariance: Literal["shared", "predicted"] = "shared",
        scale_floor: float = 1e-3,
        start: Start = "null",
    ) -> None:
        if covariance not in get_args(Literal["shared", "predicted"]):
            raise UsageError(f"head.covariance={covariance!r}: expected 'predicted' or 'shared'")
        if not 0 <= scale_floor < 1:
            raise UsageError(f"head.scale_floor={scale_floor}: expected a fraction of sd(y) in [0, 1)")
        locs = tuple(f"{name}.loc" for name in targets)
        rest = tuple(f"{name}.scale" for name in targets)
        rest += tuple(f"{name}.on_{before}" for d, name in enumerate(targets) for before in targets[:d])
        shared = covariance == "shared"
        super().__init__(locs if shared else locs + rest, rest if shared else (), start)
        self.targets, self.scale_floor, self.num_targets = tuple(targets), scale_floor, len(targets)
        self.event_shape = torch.Size([len(targets)])
        self.register_buffer("floor", torch.zeros(len(targets), dtype=torch.float64))
        self.pairs = [(d, j) for d in range(len(targets)) for j in range(d)]
        # The NLL is convex in (T, T loc), and a loc that is linear in x makes T loc linear in x, without restriction.
        self.unimodal = shared

    def set_column_units(self, mean: Sequence[float], spread: Sequence[float]) -> None:
        """Set center, gain and floor from the mean and standard deviation of each target."""
        count = self.num_targets
        unit = [sd if sd > 0 else abs(middle) or 1.0 for middle, sd in zip(mean, spread, strict=True)]
        for d in range(count):
            self.center[d], self.gain[d] = mean[d], unit[d]
            self.center[count + d] = math.log(unit[d])
            self.floor[d] = self.scale_floor * unit[d]
        for column, (d, j) in enumerate(self.pairs, start=2 * count):
            self.gain[column] = unit[d] / unit[j]

    def inverse_link_of(self, name: str) -> Transform:
        """The inverse link of a parameter: exp for a scale, else the identity."""
        return inverse_link.exp if name in self._scale_names else inverse_link.identity

    def lowest(self) -> Tensor:
        """The eta of each column at its floor, (columns,): log(floor) for a scale, else −∞."""
        values = super().lowest()
        values[self.num_targets : 2 * self.num_targets] = self.floor.log()
        return values

    def least_scale(self, eta: Tensor) -> Tensor:
        """The smallest scale of each row, each in units of its target's gain, (*batch,)."""
        unit = self.gain[: self.num_targets]
        return (self.distribution(eta).scale / unit).amin(-1)

    def distribution(self, eta: Tensor) -> MultivariateGaussian:
        """The distribution for a complete eta."""
        count = self.num_targets
        scale = inverse_link.floored(eta[..., count : 2 * count].exp(), self.floor)
        coefficient = eta.new_zeros(*eta.shape[:-1], count, count)
        rows, columns = torch.tril_indices(count, count, -1, device=eta.device)
        coefficient[..., rows, columns] = eta[..., 2 * count :]
        return MultivariateGaussian(eta[..., :count], scale, coefficient)

    def information(self, eta: Tensor) -> Tensor:
        """Block-diagonal expected information, (*batch, columns, columns).

        T' T in loc; 2 in each log scale; in the coefficients of a target, the covariance of the targets before it over
        its scale².
        """
        count, normal = self.num_targets, self.distribution(eta)
        whole = eta.new_zeros(*eta.shape, eta.shape[-1])
        factor = torch.stack([normal.standardised(unit) for unit in torch.eye(count).to(eta)], -1)
        whole[..., :count, :count] = factor.mT @ factor
        for d in range(count):
            whole[..., count + d, count + d] = 2.0
            own = slice(2 * count + d * (d - 1) // 2, 2 * count + d * (d + 1) // 2)
            whole[..., own, own] = normal.covariance[..., :d, :d] / normal.scale[..., d, None, None].square()
        return whole

    @property
    def _scale_names(self) -> tuple[str, ...]:
        return (self.eta_names + self.shared_names)[self.num_targets : 2 * self.num_targets]
