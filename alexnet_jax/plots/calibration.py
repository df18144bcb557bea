"""The reliability diagram: accuracy against confidence."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots import style


@style.styled
def reliability_diagram(
    count: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray, expected_error: float
) -> Figure:
    """Draws the accuracy of predictions against their confidence, and how many have each.

    Args:
      count: int[bins], number of predictions in each bin; the bins divide 0 to 1 equally.
      confidence: float[bins], mean probability of the predicted class; 0 where a bin is empty.
      accuracy: float[bins], share of predictions that are correct; 0 where a bin is empty.
      expected_error: expected calibration error, a fraction; shown in the title.

    Returns:
      A figure of two panels, one above the other, with a shared confidence axis.
    """
    left = np.arange(len(count)) / len(count)
    options: dict[str, Any] = {"width": 1.0 / len(count), "align": "edge", "edgecolor": "white"}
    figure = Figure(figsize=(6.8, 6.0))
    figure.suptitle(f"Expected calibration error {expected_error:.1%}")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lower = np.minimum(confidence, accuracy)
    above.bar(left, lower, color=style.BLUE, **options)
    for label, color, upper in (
        ("less accurate than confident", style.ORANGE, confidence),
        ("more accurate than confident", style.SKY_BLUE, accuracy),
    ):
        above.bar(left, upper - lower, bottom=lower, color=color, label=label, **options)
    above.plot([0, 1], [0, 1], "--", color=style.GRAY, linewidth=1.0, label="well calibrated")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    style.legend_below(figure, ncols=3)
    bars = below.bar(left, count, color=style.GRAY, **options)
    below.bar_label(bars, [f"{number:,}" if number else "" for number in count], fontsize=6.5)
    below.margins(y=0.2)
    below.set(xlabel="probability of the predicted class", ylabel="examples")
    return figure
