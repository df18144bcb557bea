"""The figures of one run: its learning curves, and the kernels of its first layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.errors import InputError
from alexnet_jax.plots.drawing import (
    BLUE,
    DPI,
    ORANGE,
    SKY_BLUE,
    VERMILLION,
    new_figure,
    place,
    shorten,
    styled,
    wrap,
    write,
)

# For each split, the color of loss and top-1, and that of top-5.
SPLIT_COLORS = {"train": (BLUE, SKY_BLUE), "val": (VERMILLION, ORANGE)}

# Few points are shown as such (a single one would else be invisible), very many as a thin line.
MOST_MARKED_POINTS, MOST_POINTS_OF_FULL_WIDTH = 40, 400

# The kernels' page. Lengths in inches are sixteenths, that is whole pixels, lest pixels be uneven.
MARGIN = TOWER_GAP = TOWER_LABEL_WIDTH = 0.25
TITLE_HEIGHT = 0.3125
CAPTION_GAP = 0.125
CAPTION_LINE = 0.1875
CAPTION_SIZE = 8.0
LEAST_PAGE_WIDTH = 4.0
MOSAIC_PIXELS, MOST_ZOOM = 1200, 16


@styled
def learning_curves(lines: Sequence[Mapping[str, Any]], num_classes: int) -> Figure:
    """Draw loss, error and learning rates of a run against its epochs.

    Args:
        lines: The objects of metrics.jsonl, in the order written: `step`, `epoch` (a fraction
            within an epoch), `split` ("train" or "val"), `loss`, `top1`, `top5` (fractions
            correct), and `learning_rates` ({name: rate}) where they are known. Of two lines for
            one step and split, as a resumed run may leave, the later one counts.
        num_classes: Top-5 errors are drawn if there are more than five classes.

    Returns:
        A figure of three panels, left to right: loss, error in percent, learning rates.

    Raises:
        InputError: There are no lines.
    """
    if not lines:
        raise InputError(
            "No metrics to draw: metrics.jsonl is empty. Draw the curves after the first log line."
        )
    figure = new_figure(12.0, 3.6)
    # Fixed margins: the layout engines shift a figure a little each time it is drawn.
    figure.subplots_adjust(left=0.045, right=0.985, bottom=0.15, top=0.9, wspace=0.22)
    panels = loss_axes, error_axes, rate_axes = figure.subplots(1, 3)
    for split, (color, top5_color) in SPLIT_COLORS.items():
        chosen = _one_per_step([line for line in lines if line["split"] == split])
        if not chosen:
            continue
        epochs = [line["epoch"] for line in chosen]
        _curve(loss_axes, epochs, [line["loss"] for line in chosen], color, split)
        top1 = [100.0 * (1.0 - line["top1"]) for line in chosen]
        _curve(error_axes, epochs, top1, color, f"{split}, top-1")
        if num_classes > 5:
            top5 = [100.0 * (1.0 - line["top5"]) for line in chosen]
            _curve(error_axes, epochs, top5, top5_color, f"{split}, top-5")
    _learning_rates(rate_axes, _one_per_step([line for line in lines if "learning_rates" in line]))
    loss_axes.set_title("Loss")
    error_axes.set_title("Error (%)")
    error_axes.set_ylim(0.0, 1.06 * max(100.0 * (1.0 - line["top1"]) for line in lines) or 1.0)
    loss_axes.ticklabel_format(axis="y", useOffset=False)
    last = max(line["epoch"] for line in lines)
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.set_xlim(0.0, 1.02 * last or 1.0)
        axes.grid(True)
        if entries := len(axes.get_legend_handles_labels()[1]):
            corner = "upper right" if axes is rate_axes else "best"
            axes.legend(loc=corner, ncols=_legend_columns(entries))
    return figure


def _one_per_step(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the lines by rising step, the last one written for each."""
    by_step = {line["step"]: line for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def _legend_columns(entries: int) -> int:
    return max(1, math.ceil(entries / 6))


def _curve(
    axes: Axes, epochs: Sequence[float], values: Sequence[float], color: str, label: str
) -> None:
    marker = "o" if len(values) <= MOST_MARKED_POINTS else None
    width = 1.4 if len(values) <= MOST_POINTS_OF_FULL_WIDTH else 0.7
    axes.plot(epochs, values, color=color, label=label, marker=marker, ms=3, linewidth=width)


def _learning_rates(axes: Axes, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draw one line for each course of rates; names that share a course share its line."""
    epochs = [line["epoch"] for line in lines]
    courses: dict[tuple[float, ...], list[str]] = {}
    for name in dict.fromkeys(name for line in lines for name in line["learning_rates"]):
        key = tuple(float(line["learning_rates"].get(name, math.nan)) for line in lines)
        courses.setdefault(key, []).append(name)
    rates = np.array(list(courses), dtype=np.float64).reshape(len(courses), len(lines))
    frozen = (rates == 0.0).any(axis=1)
    axes.set_title("Learning rate (zero: along the axis)" if frozen.any() else "Learning rate")
    _set_rate_axis(axes, rates[rates > 0.0], len(courses))
    marker = "o" if len(lines) == 1 else None
    label_width = 2.4 / _legend_columns(len(courses))
    for index, names in enumerate(courses.values()):
        course = rates[index]
        # Where lines run together the later one is thinner, and the earlier still shows.
        width = min(1.4 + 0.7 * (len(courses) - 1 - index), 5.0)
        (line,) = axes.step(
            epochs,
            np.where(course > 0.0, course, np.nan),
            where="post",
            label=shorten(", ".join(names), label_width, 8.0),
            linewidth=width,
            marker=marker,
            markersize=4,
        )
        if frozen[index]:
            # The logarithm has no zero: frozen stretches lie on the lower edge, one on the other.
            height = 0.01 + 0.016 * np.count_nonzero(frozen[:index])
            axes.plot(
                epochs,
                np.where(course == 0.0, height, np.nan),
                color=line.get_color(),
                linewidth=3.0,
                marker=marker,
                transform=axes.get_xaxis_transform(),
            )


def _set_rate_axis(axes: Axes, positive: NDArray[np.float64], entries: int) -> None:
    """Set a logarithmic axis in whole decades, with room above for a legend of so many entries."""
    low, high = -4, 0
    if positive.size:
        # The tenth keeps a rate off the edge, and gives a lone rate ticks on both sides.
        low = math.floor(math.log10(positive.min()) - 0.1)
        high = math.ceil(math.log10(positive.max()) + 0.1)
    legend = 0.04 + 0.06 * math.ceil(entries / _legend_columns(entries))
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0 ** (low + (high - low) / (1.0 - legend)))
    decades = np.arange(low, high + 1, math.ceil((high - low) / 7))
    axes.yaxis.set_major_locator(FixedLocator((10.0**decades).tolist()))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


@styled
def kernels(kernel: ArrayLike, towers: int = 1, *, common_scale: bool = False) -> Figure:
    """Draw every kernel of a first layer, one tower above the other, as the paper's Figure 3.

    Args:
        kernel: The layer's weights, [height, width, 1 or 3, kernels].
        towers: Into how many equal parts the last axis is cut.
        common_scale: As `kernel_mosaic` has it.

    Returns:
        A figure with one picture for each tower; a pixel of a kernel is a whole number of the
        figure's pixels.

    Raises:
        InputError: As `kernel_mosaic` does.
    """
    mosaics = kernel_mosaic(kernel, towers, common_scale=common_scale)
    height, width = mosaics.shape[1:3]
    zoom = max(1, min(MOST_ZOOM, MOSAIC_PIXELS // max(width, height)))
    tall, wide = height * zoom / DPI, width * zoom / DPI
    left = MARGIN + (TOWER_LABEL_WIDTH if towers > 1 else 0.0)
    text_left = left + zoom / DPI  # in line with the kernels, inside the mosaic's white edge
    page_width = max(left + wide + MARGIN, LEAST_PAGE_WIDTH)
    rows, columns, channels, count = np.shape(kernel)
    title = (
        f"Kernels of the first layer: {count} of "
        f"{rows}\N{MULTIPLICATION SIGN}{columns}\N{MULTIPLICATION SIGN}{channels}"
    )
    scale = (
        "all kernels are scaled about it by the largest magnitude among them"
        if common_scale
        else "each kernel is scaled about it by its own largest magnitude"
    )
    caption = wrap(f"Mid-gray is zero; {scale}.", page_width - text_left - MARGIN, CAPTION_SIZE)
    top = MARGIN + TITLE_HEIGHT
    below = top + towers * (tall + TOWER_GAP) - TOWER_GAP + CAPTION_GAP
    figure = new_figure(page_width, below + len(caption) * CAPTION_LINE + CAPTION_GAP)
    write(figure, text_left, MARGIN, title, fontsize=10)
    for tower, mosaic in enumerate(mosaics):
        tower_top = top + tower * (tall + TOWER_GAP)
        axes = place(figure, left, tower_top, wide, tall)
        axes.imshow(mosaic, interpolation="nearest", aspect="auto")
        if towers > 1:
            axes.set_ylabel(f"tower {tower + 1}")
    write(figure, text_left, below, "\n".join(caption), fontsize=CAPTION_SIZE)
    return figure


def kernel_mosaic(
    kernel: ArrayLike, towers: int = 1, *, common_scale: bool = False
) -> NDArray[np.float64]:
    """Lay out a first layer's kernels as pictures, in rows, with white lines between them.

    Args:
        kernel: The layer's weights, [height, width, 1 or 3, kernels]; three channels are red,
            green and blue.
        towers: Into how many equal parts the last axis is cut.
        common_scale: Scale all kernels by the largest magnitude among them, and not each by its
            own.

    Returns:
        One mosaic a tower, [towers, rows * (height + 1) + 1, columns * (width + 1) + 1, 3], in
        [0, 1]: 0 and 1 are minus and plus the largest magnitude, 0.5 is a weight of zero.

    Raises:
        InputError: The kernel has another shape, is not finite, or does not divide by `towers`.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    if weights.ndim != 4 or weights.shape[2] not in (1, 3):
        raise InputError(
            f"Kernels of shape {weights.shape} cannot be drawn as pictures: give the first layer's "
            "weights, [height, width, 1 or 3, kernels]."
        )
    if not np.isfinite(weights).all():
        raise InputError("The kernels to draw are not all finite: take an earlier checkpoint.")
    height, width, _, count = weights.shape
    if count % towers:
        raise InputError(f"{count} kernels do not divide by {towers} towers: name another number.")
    largest = np.abs(weights).max(axis=None if common_scale else (0, 1, 2), keepdims=True)
    # A kernel of zeros stays zero, mid-gray, whatever it is divided by.
    pictures = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1.0)
    per_tower = count // towers
    columns = _mosaic_columns(per_tower, count)
    rows = -(-per_tower // columns)
    mosaics = np.ones((towers, rows * (height + 1) + 1, columns * (width + 1) + 1, 3))
    for index in range(count):
        tower, position = divmod(index, per_tower)
        top = 1 + position // columns * (height + 1)
        left = 1 + position % columns * (width + 1)
        mosaics[tower, top : top + height, left : left + width] = pictures[..., index]
    return mosaics


def _mosaic_columns(per_tower: int, count: int) -> int:
    """Return how many kernels to put in a row: the paper's 16 for its 96.

    The whole figure shall be some two times as wide as tall, and its rows full if that can be.
    """
    wanted = math.ceil(math.sqrt(2 * count))
    full = [columns for columns in range(wanted, 2 * wanted) if per_tower % columns == 0]
    return min(full[0] if full else wanted, per_tower)
