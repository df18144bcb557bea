"""The accuracy of each class, in descending order."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alexnet_jax.plots import style

MOST_BARS = 60  # of more classes, only the best and the worst have bars; a curve shows all
ENDS = 25


@style.styled
def class_accuracies(correct: np.ndarray, count: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws the accuracy of each class, best first.

    Up to sixty classes are drawn as bars with names and standard errors. For more, a curve shows
    all classes, and bars show the twenty-five best and the twenty-five worst.

    Args:
      correct: int[classes], examples predicted correctly.
      count: int[classes], examples; classes without one are left out.
      class_names: a name for each class, shortened where it does not fit.
    """
    accuracy = correct / np.maximum(count, 1)
    known = np.flatnonzero(count)
    order = known[np.argsort(-accuracy[known], kind="stable")]
    if len(order) <= MOST_BARS:
        figure = Figure(figsize=(7.5, 0.19 * len(order) + 1.0))
        groups = {"": order}
        axes = {"": figure.add_subplot()}
    else:
        figure = Figure(figsize=(15.0, 0.19 * ENDS + 4.0))
        groups = {f"The {ENDS} best": order[:ENDS], f"The {ENDS} worst": order[-ENDS:]}
        axes = figure.subplot_mosaic([["curve", "curve"], [*groups]], height_ratios=(1, 1.8))
        _draw_curve(axes["curve"], accuracy[order])
    figure.suptitle(
        f"Top-1 accuracy of {len(order):,} classes, {accuracy[order].mean():.1%} on average "
        "(lines: one standard error)"
    )
    for title, labels in groups.items():
        names = [style.shorten(class_names[label], 32) for label in labels]
        axes[title].set_title(title)
        _draw_bars(axes[title], correct[labels], count[labels], names)
    return figure


def _draw_bars(axes: Axes, correct: np.ndarray, count: np.ndarray, names: Sequence[str]) -> None:
    """Draws a bar for each class, its standard error, and its counts."""
    rows = np.arange(len(names))
    accuracy = correct / count
    error = np.sqrt(accuracy * (1 - accuracy) / count)
    axes.barh(rows, accuracy, 0.76, xerr=error, color=style.SKY_BLUE, ecolor=style.BLUE)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
    axes.set_yticks(rows, names)
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.grid(False, axis="y")
    axes.tick_params(length=0, labelsize=8.0)
    # Outside of the axes, at the height of the bar.
    beyond = {"va": "center_baseline", "transform": axes.get_yaxis_transform(), "fontsize": 8.0}
    for row in range(len(rows)):
        text = f"{style.percent(accuracy[row])}   {correct[row]:,} of {count[row]:,}"
        axes.text(1.02, row, text, beyond)


def _draw_curve(axes: Axes, accuracies: np.ndarray) -> None:
    edges = np.arange(len(accuracies) + 1) + 0.5
    axes.stairs(accuracies, edges, fill=True, color=style.SKY_BLUE)
    median = float(np.median(accuracies))
    axes.axhline(median, color=style.GRAY, linestyle="--", linewidth=1.0)
    axes.text(len(accuracies), median, f"median {median:.0%}", ha="right", va="bottom")
    axes.set(xlim=edges[[0, -1]], ylim=(0, 1), xlabel="classes, best first")
    axes.yaxis.set_major_formatter("{x:.0%}")
