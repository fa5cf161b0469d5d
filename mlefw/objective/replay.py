"""Functions of tensors that are called again and again: recorded after some calls, and replayed from then on."""

from collections.abc import Callable, Sequence

from torch import Tensor

from mlefw.objective.tape import NotReplayableError, Tape


class Replay:
    """Calls functions, each known by a key, and after some calls of one runs its recorded kernels (`Tape`) instead.

    To record takes as long as a dozen calls gain, so a function that is called a few times alone is not recorded, and
    one that cannot be recorded is called each time.

    Args:
        after: calls of a function before the one that records it.
        most: functions that are recorded at the most; None for any number.
    """

    def __init__(self, after: int, most: int | None = None) -> None:
        self.after, self.most = after, most
        self.tapes: dict[object, Tape] = {}
        self._calls: dict[object, int] = {}

    def __call__(
        self, key: object, function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
    ) -> Sequence[Tensor]:
        """The outputs of `function(*inputs)`; those of a replay are inference tensors, without autograd.

        Args:
            key: of the function and of all that a recording holds fixed, such as the shapes of the inputs.
            function: maps tensors to tensors.
            inputs: its arguments.
        """
        if key in self.tapes:
            return self.tapes[key](*inputs)
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if calls == self.after + 1 and (self.most is None or len(self.tapes) < self.most):
            try:
                tape = self.tapes[key] = Tape(function, inputs)
                return tape.taken()
            except NotReplayableError:
                pass
        return function(*inputs)
