"""Numbers of trials, beside the counts of successes out of them."""

import numpy as np

from mlefw.reading.levels import check, check_whole, numbers
from mlefw.reading.table import Table


def with_trials(table: Table, count: np.ndarray, target: str, name: str) -> np.ndarray:
    """Counts (n,), NaN where they are missing, and the numbers of trials in a column, (n, 2).

    Raises:
        UsageError: a number of trials is missing, not whole, or below 1; or a count is above it.
    """
    check_whole(table, name, "data.trials")
    trials = numbers(table, name, "data.trials")
    check(table, name, "data.trials", (trials >= 1) & (trials == np.round(trials)), "whole numbers from 1 on")
    above = f"numbers of trials (data.trials={name}) of at least the count of successes"
    fits = ~(count > trials)
    if not fits.all():
        check(table, name, "data.trials", fits, f"{above} in column {target!r} (data.target)")
    return np.stack([count, trials], 1)
