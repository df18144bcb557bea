"""How well a net knows each class: accuracies in falling order."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.plots.drawing import (
    BLUE,
    GRAY,
    SKY_BLUE,
    new_figure,
    place,
    shorten,
    styled,
    text_width,
    write,
)

# Inches, but for the sizes of letters (points).
MARGIN = 0.25
TITLE_SIZE, NAME_SIZE = 11.0, 8.0
TITLE_HEIGHT = 0.375
ROW = 0.1875
BAR_WIDTH = 4.0
LONGEST_NAME = 2.0
NUMBER_WIDTH = 1.25
TICKS = 0.3125
CURVE_HEIGHT = 2.5

MOST_BARS = 60  # of more classes, the ends are shown by name and all of them as a curve
ENDS = 25


@styled
def class_accuracies(right: ArrayLike, count: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Draw the accuracy of each class, the best first.

    Up to sixty classes are bars with their names and a standard error. Of more, a curve shows all,
    and bars the twenty-five best and the twenty-five worst.

    Args:
        right: int [classes], examples predicted rightly.
        count: int [classes], examples; classes without one are left out.
        class_names: A name for each class, shortened where it does not fit.
    """
    counts, rights = np.asarray(count), np.asarray(right)
    share = rights / np.maximum(counts, 1)
    known = np.flatnonzero(counts)
    order = known[np.argsort(-share[known], kind="stable")]
    every = len(order) <= MOST_BARS
    groups = [("", order)] if every else [("best", order[:ENDS]), ("worst", order[-ENDS:])]
    names = [shorten(name, LONGEST_NAME, NAME_SIZE) for name in class_names]
    longest = max(text_width(names[label], NAME_SIZE) for label in order)
    column = longest + 0.125 + BAR_WIDTH + NUMBER_WIDTH
    top = MARGIN + TITLE_HEIGHT + (0 if every else CURVE_HEIGHT + 2 * TICKS + TITLE_HEIGHT)
    height = top + len(groups[0][1]) * ROW + TICKS + MARGIN
    figure = new_figure(MARGIN + len(groups) * (column + MARGIN), height)
    write(figure, MARGIN, MARGIN, _title(share[order]), fontsize=TITLE_SIZE)
    if not every:
        curve = place(
            figure,
            MARGIN + 0.375,
            MARGIN + TITLE_HEIGHT,
            2 * column + MARGIN - 0.375,
            CURVE_HEIGHT,
        )
        _draw_curve(curve, share[order])
    for index, (end, labels) in enumerate(groups):
        left = MARGIN + index * (column + MARGIN)
        if end:
            text = f"The {len(labels)} {end}"
            write(figure, left, top - TITLE_HEIGHT + 0.0625, text, fontsize=TITLE_SIZE)
        axes = place(figure, left + longest + 0.125, top, BAR_WIDTH, len(labels) * ROW)
        _draw_bars(axes, rights[labels], counts[labels], [names[label] for label in labels])
    return figure


def _title(shares: NDArray[np.float64]) -> str:
    mean = f"{shares.mean():.1%} on average"
    return f"Top-1 accuracy of {len(shares):,} classes, {mean} (lines: a standard error)"


def _percent_axis(axes: Axes) -> None:
    axes.set(xlim=(0, 100), xticks=range(0, 101, 20))
    axes.set_xticklabels([f"{tick} %" for tick in range(0, 101, 20)])
    axes.grid(True, axis="x")
    axes.tick_params(length=0)


def _draw_bars(
    axes: Axes, right: NDArray[np.int64], count: NDArray[np.int64], names: Sequence[str]
) -> None:
    """Draw a bar for each class, its standard error, and the numbers behind it."""
    rows = np.arange(len(names))
    share = right / count
    error = np.sqrt(share * (1 - share) / count)
    axes.barh(rows, 100 * share, height=0.76, color=SKY_BLUE)
    axes.errorbar(100 * share, rows, xerr=100 * error, fmt="none", ecolor=BLUE, elinewidth=1.0)
    _percent_axis(axes)
    axes.set(ylim=(len(rows) - 0.5, -0.5), yticks=rows)
    axes.set_yticklabels(names, fontsize=NAME_SIZE)
    for row in range(len(names)):
        text = f"{share[row]:.0%}   {right[row]:,} of {count[row]:,}"
        axes.text(104, row, text, va="center_baseline", fontsize=NAME_SIZE)


def _draw_curve(axes: Axes, shares: NDArray[np.float64]) -> None:
    places = np.arange(1, len(shares) + 1)
    axes.fill_between(places, 100 * shares, step="mid", color=SKY_BLUE, linewidth=0)
    middle = 100 * float(np.median(shares))
    axes.axhline(middle, color=GRAY, linestyle="--", linewidth=1.0)
    axes.text(len(shares), middle + 1, f"median {middle:.0f} %", ha="right", fontsize=NAME_SIZE)
    step = 10 ** math.floor(math.log10(len(shares) - 1))
    axes.set(xlim=(0.5, len(shares) + 0.5), ylim=(0, 100), yticks=range(0, 101, 20))
    axes.set_xticks([1, *range(step, len(shares) + 1, step)])
    axes.set_yticklabels([f"{tick} %" for tick in range(0, 101, 20)])
    axes.set_xlabel("classes, the best first")
    axes.grid(True)
