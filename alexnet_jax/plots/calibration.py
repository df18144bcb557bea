"""The reliability diagram: how often a net is right against how sure it is."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from alexnet_jax.plots.drawing import BLUE, GRAY, ORANGE, SKY_BLUE, new_figure, styled


@styled
def reliability_diagram(
    count: ArrayLike, confidence: ArrayLike, accuracy: ArrayLike, expected_error: float
) -> Figure:
    """Draw the accuracy of predictions against their confidence, over the number of each.

    Args:
        count: int [bins], predictions in each of as many bins of equal width from 0 to 1.
        confidence: float [bins], mean probability of the predicted class.
        accuracy: float [bins], share of predictions that are right.
        expected_error: Expected calibration error, a fraction, written in the title.

    Returns:
        A figure of two panels, one above the other, over one axis of confidence.
    """
    counts = np.asarray(count)
    sure, right = np.asarray(confidence), np.asarray(accuracy)
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    left, width, full = edges[:-1], edges[1], counts > 0
    figure = new_figure(4.6, 5.6)
    figure.subplots_adjust(left=0.13, right=0.97, bottom=0.09, top=0.93, hspace=0.1)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lower = np.minimum(sure, right)
    above.bar(left, lower, width, align="edge", color=BLUE, edgecolor="white")
    for label, color, gap in (
        ("right less often than sure", ORANGE, sure - right),
        ("right more often than sure", SKY_BLUE, right - sure),
    ):
        tall = np.where(full, np.maximum(gap, 0.0), 0.0)
        above.bar(
            left, tall, width, lower, align="edge", color=color, edgecolor="white", label=label
        )
    above.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1.0, label="well calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    above.set_title(f"Expected calibration error {expected_error:.1%}")
    above.legend(loc="upper left")
    below.bar(left, counts, width, align="edge", color=GRAY, edgecolor="white")
    below.set(xlabel="probability of the predicted class", ylabel="examples")
    for axes in (above, below):
        axes.grid(True)
    return figure
