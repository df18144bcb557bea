"""The reliability diagram: how often a model is correct against how confident it is."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from alexnet_jax.plots import style


@style.styled
def reliability_diagram(
    count: ArrayLike, confidence: ArrayLike, accuracy: ArrayLike, expected_error: float
) -> Figure:
    """Draws the accuracy of predictions against their confidence, over the number of each.

    Args:
      count: int[bins], predictions in each of as many bins of equal width from 0 to 1.
      confidence: float[bins], mean probability of the predicted class.
      accuracy: float[bins], share of predictions that are correct.
      expected_error: expected calibration error, a fraction, written in the title.

    Returns:
      A figure of two panels, one above the other, over one axis of confidence.
    """
    counts = np.asarray(count)
    confident, correct = np.asarray(confidence), np.asarray(accuracy)
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    bins: dict[str, Any] = {
        "x": edges[:-1],
        "width": edges[1],
        "align": "edge",
        "edgecolor": "white",
    }
    figure = Figure(figsize=(6.8, 6.0))
    figure.suptitle(f"Expected calibration error {expected_error:.1%}")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lower = np.minimum(confident, correct)
    above.bar(height=lower, color=style.BLUE, **bins)
    for label, color, gap in (
        ("less accurate than confident", style.ORANGE, confident - correct),
        ("more accurate than confident", style.SKY_BLUE, correct - confident),
    ):
        height = np.where(counts > 0, np.maximum(gap, 0.0), 0.0)
        above.bar(height=height, bottom=lower, color=color, label=label, **bins)
    above.plot(
        [0, 1], [0, 1], color=style.GRAY, linestyle="--", linewidth=1.0, label="well calibrated"
    )
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    style.legend_below(figure, ncols=3)
    bars = below.bar(height=counts, color=style.GRAY, **bins)
    below.bar_label(bars, [f"{number:,}" if number else "" for number in counts], fontsize=6.5)
    below.margins(y=0.2)
    below.set(xlabel="probability of the predicted class", ylabel="examples")
    for axes in (above, below):
        axes.grid(True)
    return figure
