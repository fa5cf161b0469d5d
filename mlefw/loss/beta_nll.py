"""The gradient weighting of heteroscedastic regression called beta-NLL."""

from torch import Tensor

from mlefw.errors import UsageError
from mlefw.head.base import Head
from mlefw.head.gaussian import GaussianHead
from mlefw.loss.base import Loss


class BetaNll(Loss):
    """The NLL of a Gaussian whose rows are weighted by a power of their predicted scale (Seitzer et al., 2022).

    Loss: (scale / unit)^(2 beta) · NLL, the first factor held constant in the gradient; unit is the standard deviation
    of the target. With beta = 0 it is the NLL, with beta = 1 the location descends squared errors. In between, badly
    predicted rows keep a weight in the gradient of the location although their scale has grown. It is not a
    likelihood: where the model is misspecified its minimum is not the maximum likelihood estimate.
    """

    is_potential = False

    def __init__(self, beta: float = 0.5) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise UsageError(f"loss.beta={beta}: expected a number from 0 (the plain NLL) to 1 (squared errors)")
        self.beta = beta

    def check(self, head: Head) -> None:
        """Refuse any head but a Gaussian whose scale is predicted."""
        if not (isinstance(head, GaussianHead) and "scale" in head.eta_names):
            raise UsageError(
                f"loss=beta_nll weighs rows by the scale predicted for each, which {type(head).__name__} "
                "does not have: expected head=heteroscedastic, or loss=plain"
            )

    def forward(self, head: Head, eta: Tensor, y: Tensor) -> Tensor:
        """The loss of each row, (*batch,)."""
        assert isinstance(head, GaussianHead)
        scale = head.params(head.complete(eta.detach()))["scale"] / head.gain[0]
        return scale ** (2 * self.beta) * head.nll(eta, y)
