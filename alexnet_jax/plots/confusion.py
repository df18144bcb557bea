"""The confusion matrix as an image, for any number of classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from alexnet_jax.plots import style

# The largest numbers of classes with percentages in the cells, and with names on the axes.
MOST_NUMBERED, MOST_NAMED = 30, 100
MOST_CELLS = 250


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
    norm = PowerNorm(0.5, vmin=0.0, vmax=1.0)
    axes.imshow(shares, cmap="Blues", norm=norm, extent=(-0.5, end, end, -0.5))
    if len(shares) > MOST_NUMBERED:
        return
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            color = "white" if share > 0.35 else "black"
            text = style.percent(share).removesuffix("%")
            axes.text(column, row, text, ha="center", va="center_baseline", size=8.0, color=color)
