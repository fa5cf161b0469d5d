"""NLL as entropy plus KL, and the Gaussian that is closest to a mixture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from mlefw.plot.style import BLUE, GREY, ORANGE, SKY, VERMILION, drawn, legend, sheet


@drawn
def picture(
    bars: Sequence[tuple[str, float, float, float]],
    shares: Sequence[float],
    centers: Sequence[float],
    scales: Sequence[float],
    closest: tuple[float, float],
    example: tuple[float, float],
) -> Figure:
    """Stacked bars of entropy and KL with the NLL of a sample; densities of mixture, closest and fitted Gaussian.

    Args:
        bars: name, entropy, KL divergence and sampled NLL of each model.
        shares: weights of the mixture's components.
        centers: means of the mixture's components.
        scales: standard deviations of the mixture's components.
        closest: mean and standard deviation of the Gaussian that is closest in KL divergence.
        example: mean and standard deviation of a Gaussian fitted to a few rows.
    """
    title = "The NLL is entropy plus KL divergence: training can take away the second part alone"
    figure = sheet(title, "Left: models of six outcomes; right: a Gaussian fitted to what is none", 4.9)
    figure.subplots_adjust(wspace=0.25)
    left, right = figure.subplots(1, 2)
    names = [bar[0] for bar in bars]
    entropy, gap, sampled = (np.array([bar[k] for bar in bars]) for k in (1, 2, 3))
    left.bar(names, entropy, color=SKY, label="entropy of the truth")
    left.bar(names, gap, bottom=entropy, color=ORANGE, label="KL(truth, model)")
    left.plot(names, sampled, "o", color="black", label="NLL of 10000 draws")
    left.set(ylabel="nats", ylim=(0, 1.35 * float((entropy + gap).max())))
    legend(left, loc="upper left")
    y = np.linspace(-4, 6, 400)
    mixture = sum(w * stats.norm.pdf(y, m, s) for w, m, s in zip(shares, centers, scales, strict=True))
    right.fill_between(y, mixture, color=GREY, alpha=0.25, linewidth=0, label="truth: a mixture")
    right.plot(y, stats.norm.pdf(y, *closest), color=BLUE, label="closest Gaussian in KL")
    right.plot(y, stats.norm.pdf(y, *example), "--", color=VERMILION, label="one fit to few rows")
    right.set(xlabel="y", ylabel="density")
    right.set_ylim(0, 1.35 * float(np.max(mixture)))
    legend(right, loc="upper right")
    return figure
