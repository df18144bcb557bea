"""The figures of an evaluation: the accuracy of each class, confusion, and calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from alexnet_jax.plots import style

MOST_BARS = 60  # of more classes, only the best and the worst have bars; a curve shows all
ENDS = 25

# The largest numbers of classes with percentages in the cells, and with names on the axes.
MOST_NUMBERED, MOST_NAMED = 30, 100
MOST_CELLS = 250


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
        _draw_classes(axes[title], correct[labels], count[labels], names)
    return figure


def _draw_classes(axes: Axes, correct: np.ndarray, count: np.ndarray, names: Sequence[str]) -> None:
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


@style.styled
def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draws which classes are predicted as which, and lists the most frequent mistakes.

    A cell's shade is the square root of its share of the class in its row, so that rare mistakes
    are visible. Up to thirty classes have their shares in percent in the cells, and up to a hundred
    have their names on the axes; more are numbered. Beyond 250, neighboring classes share a cell.

    Args:
      counts: int[classes, classes], examples of each class (row) by predicted class (column).
      class_names: a name for each class, shortened where it does not fit.
    """
    classes = len(counts)
    group = -(-classes // MOST_CELLS)
    side = min(2.5 + 0.4 * classes, 9.0)  # inches
    figure = Figure(figsize=(side + 5.5, side + 1.0))
    grouped = f", {group}x{group} to a cell" if group > 1 else ""
    figure.suptitle(f"Confusion of {classes:,} classes, in shares of the correct class{grouped}")
    axes, listed = figure.subplots(1, 2, width_ratios=(side + 1.5, 4.0))
    axes.set_anchor("N")
    _draw_cells(axes, grouped_shares(counts, group), group)
    names = [style.shorten(name, 26) for name in class_names]
    if classes <= MOST_NAMED:
        size = 8.0 if classes <= MOST_NUMBERED else 5.5
        axes.set_xticks(range(classes), names, rotation=90, fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
        axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="correct class")
    listed.set_axis_off()
    mistakes = [
        (names[row], names[column], f"{times:,} of {counts[row].sum():,}")
        for row, column, times in most_frequent(counts, int(4 * side))
    ]
    header = ("correct", "predicted as", "times")
    table = listed.table([header, *mistakes], cellLoc="left", edges="open", loc="upper left")
    table.auto_set_font_size(False)
    table.set_fontsize(8.0)
    table.auto_set_column_width(range(len(header)))
    for column in range(len(header)):
        table[0, column].set_text_props(weight="bold")
    return figure


def grouped_shares(counts: np.ndarray, group: int) -> np.ndarray:
    """Returns the shares of groups of neighboring classes that are predicted as each group.

    Args:
      counts: int[classes, classes], examples of each class (row) by predicted class (column).
      group: classes that share a row, and a column; the last group may be smaller.

    Returns:
      float64[groups, groups], the examples of each cell over those of its row; 0 where a row has
      none.
    """
    starts = np.arange(0, len(counts), group)
    cells = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    return cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)


def most_frequent(counts: np.ndarray, most: int) -> list[tuple[int, int, int]]:
    """Returns (class, predicted class, times) of the most frequent mistakes, at most `most`.

    Ties are in the order of the classes.
    """
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = zip(*np.divmod(order, len(counts)), wrong.flat[order], strict=True)
    return [(int(row), int(column), int(times)) for row, column, times in cells if times]


def _draw_cells(axes: Axes, shares: np.ndarray, group: int) -> None:
    """Draws the shares; both axes are in units of classes, not groups."""
    axes.grid(False)
    axes.spines[:].set(visible=True, linewidth=0.6)
    end = len(shares) * group - 0.5
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0.0, 1.0), extent=(-0.5, end, end, -0.5))
    if len(shares) > MOST_NUMBERED:
        return
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            color = "white" if share > 0.35 else "black"
            text = style.percent(share).removesuffix("%")
            axes.text(column, row, text, ha="center", va="center_baseline", size=8.0, color=color)


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
