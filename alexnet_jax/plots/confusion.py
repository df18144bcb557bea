"""The confusion matrix as a picture, for ten classes or a thousand."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.plots.drawing import DPI, new_figure, place, shorten, styled, text_width, write

# Inches, but for the sizes of letters (points) and what is called pixels.
MARGIN = 0.25
TITLE_SIZE = 11.0
TITLE_HEIGHT = 0.375
LABEL_HEIGHT = 0.25
LONGEST_NAME = 1.5
LIST_SIZE, LIST_LINE = 8.0, 0.1875
LONGEST_LISTED, LIST_GAP = 1.625, 0.1875
LEAST_WIDTH, LEAST_HEIGHT = 6.0, 2.5
MATRIX_PIXELS, MOST_CELLS = 1000, 250

# The most classes whose cells hold numbers, and whose names stand beside the matrix.
MOST_NUMBERED, MOST_NAMED = 30, 100


@styled
def confusion_matrix(counts: ArrayLike, class_names: Sequence[str]) -> Figure:
    """Draw which classes are taken for which, and list the most frequent mistakes.

    A cell's shade is its share of the class in its row, by its square root, so that rare mistakes
    show. Up to thirty classes have their shares in percent written in the cells, up to a hundred
    their names at the edges; more are numbered. Of more than 250, neighbors share a cell.

    Args:
        counts: int [classes, classes], examples of each class (row) taken for each (column).
        class_names: A name for each class, shortened where it does not fit.
    """
    matrix = np.asarray(counts)
    classes = len(matrix)
    group = -(-classes // MOST_CELLS)
    shares = grouped_shares(matrix, group)
    cell, name_size = _cell_pixels(len(shares)), 8.0 if classes <= MOST_NUMBERED else 5.5
    side = len(shares) * cell / DPI
    names = [shorten(name, LONGEST_NAME, name_size) for name in class_names]
    room = 0.25
    if classes <= MOST_NAMED:
        room = max(text_width(name, name_size) for name in names) + 0.0625
    left, top = MARGIN + LABEL_HEIGHT + room, MARGIN + TITLE_HEIGHT
    listed = left + side + 2 * MARGIN
    height = max(top + side + room + LABEL_HEIGHT + MARGIN, LEAST_HEIGHT)
    columns = _listed(matrix, class_names, int((height - top - MARGIN) / LIST_LINE))
    width = max(listed + sum(map(_width, columns)), LEAST_WIDTH)
    figure = new_figure(width, height)
    title = f"Confusion of {classes:,} classes, in shares of the correct class"
    if group > 1:
        title += f", {group} x {group} to a cell"
    write(figure, left, MARGIN, title, fontsize=TITLE_SIZE)
    axes = place(figure, left, top, side, side)
    _draw_cells(axes, shares, group)
    _label_edges(axes, names if classes <= MOST_NAMED else None, classes, name_size)
    _write_columns(figure, listed, top, columns)
    return figure


def grouped_shares(counts: NDArray[np.int64], group: int) -> NDArray[np.float64]:
    """Return which shares of neighboring classes are taken for which neighboring classes.

    Args:
        counts: int [classes, classes], examples of each class (row) taken for each (column).
        group: Classes that share a row, and a column; the last group may be smaller.

    Returns:
        [groups, groups], the examples of each cell over those of its row; 0 where a row has none.
    """
    starts = np.arange(0, len(counts), group)
    cells = np.add.reduceat(np.add.reduceat(counts, starts, axis=0), starts, axis=1)
    return cells / np.maximum(cells.sum(axis=1, keepdims=True), 1)


def most_frequent(counts: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """Return (class, taken for, times) of the most frequent mistakes, at most `most`.

    Of equally frequent ones the lower classes come first.
    """
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    cells = [divmod(int(place), len(counts)) for place in order]
    return [(row, column, int(wrong[row, column])) for row, column in cells if wrong[row, column]]


def _cell_pixels(classes: int) -> int:
    """Return the side of a cell: whole pixels, so that none is wider than another."""
    if classes <= MOST_NUMBERED:
        return 64 if classes <= 12 else 40
    return MATRIX_PIXELS // classes


def _draw_cells(axes: Axes, shares: NDArray[np.float64], group: int) -> None:
    """Draw the shares so that both axes count classes."""
    axes.spines[:].set(visible=True, linewidth=0.6)
    end = len(shares) * group - 0.5
    axes.imshow(
        shares,
        cmap="Blues",
        norm=PowerNorm(0.5, vmin=0.0, vmax=1.0),
        interpolation="nearest",
        aspect="auto",
        extent=(-0.5, end, end, -0.5),
    )
    if len(shares) > MOST_NUMBERED:
        return
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:
            color = "white" if share > 0.35 else "black"
            text = f"{100 * share:.0f}" if share >= 0.005 else "·"
            axes.text(
                column, row, text, ha="center", va="center_baseline", color=color, fontsize=8.0
            )


def _label_edges(axes: Axes, names: Sequence[str] | None, classes: int, size: float) -> None:
    """Write the classes' names, or for many their numbers, to the left and below."""
    if names is not None:
        axes.set(xticks=range(classes), yticks=range(classes))
        axes.set_xticklabels(names, rotation=90, fontsize=size)
        axes.set_yticklabels(names, fontsize=size)
    else:
        step = 100 if classes > 300 else 20
        axes.set(xticks=range(0, classes, step), yticks=range(0, classes, step))
    axes.tick_params(length=0 if names is not None else 2)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("correct class")


def _listed(
    counts: NDArray[np.int64], class_names: Sequence[str], most: int
) -> list[tuple[str, ...]]:
    """Return the columns of a table of the most frequent mistakes, `most` lines with its head."""
    totals = counts.sum(axis=1)
    lines = [("correct", "taken for", "times")]
    for row, column, times in most_frequent(counts, most - 1):
        lines.append((class_names[row], class_names[column], f"{times:,} of {totals[row]:,}"))
    columns = zip(*lines, strict=True)
    return [tuple(shorten(text, LONGEST_LISTED, LIST_SIZE) for text in texts) for texts in columns]


def _width(texts: Sequence[str]) -> float:
    return LIST_GAP + max(text_width(text, LIST_SIZE) for text in texts)


def _write_columns(figure: Figure, left: float, top: float, columns: list[tuple[str, ...]]) -> None:
    for texts in columns:
        for index, text in enumerate(texts):
            weight = "normal" if index else "bold"
            upper = top + index * LIST_LINE
            write(figure, left, upper, text, fontsize=LIST_SIZE, fontweight=weight)
        left += _width(texts)
