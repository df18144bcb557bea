"""The figures of a run: learning curves, and the kernels of the first layer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from alexnet_jax.errors import InputError
from alexnet_jax.plots import style

# For each split, the color of loss and top-1, and that of top-5.
SPLIT_COLORS = {"train": (style.BLUE, style.SKY_BLUE), "val": (style.VERMILLION, style.ORANGE)}

MOST_MARKED_POINTS = 40  # markers make even a single point visible

# Errors are drawn on a logarithmic axis once one is below this, in percent.
SMALL_ERROR = 10.0

Lines = Sequence[Mapping[str, Any]]


@style.styled
def learning_curves(lines: Lines, num_classes: int) -> Figure:
    """Draws loss, error and learning rates of a run against its epochs.

    Args:
      lines: the objects of metrics.jsonl, in the order written: `epoch` (a fraction within an
        epoch), `split` ("train" or "val"), `loss`, `top1`, `top5` (fractions correct), and
        `learning_rates` ({name: rate}) where they are known.
      num_classes: top-5 errors are drawn if there are more than five classes.

    Returns:
      A figure of three panels, left to right: loss, error in percent, learning rates.

    Raises:
      InputError: there are no lines.
    """
    if not lines:
        raise InputError("metrics.jsonl is empty: draw its curves after the first log line.")
    figure = Figure(figsize=(13.0, 3.8))
    panels = losses, errors, rates = figure.subplots(1, 3)
    last = max(line["epoch"] for line in lines)
    for axes, title in zip(panels, ("Loss", "Error (%)", "Learning rate"), strict=True):
        axes.set(title=title, xlabel="epoch", xlim=(0.0, 1.02 * last))
    tops = (1, 5) if num_classes > 5 else (1,)
    for split in sorted({line["split"] for line in lines}):
        chosen = [line for line in lines if line["split"] == split]
        epochs = [line["epoch"] for line in chosen]
        marker = "o" if len(chosen) <= MOST_MARKED_POINTS else None
        values = [line["loss"] for line in chosen]
        losses.plot(epochs, values, color=SPLIT_COLORS[split][0], label=split, marker=marker)
        for top, color in zip(tops, SPLIT_COLORS[split], strict=False):
            values = [100.0 * (1.0 - line[f"top{top}"]) for line in chosen]
            errors.plot(epochs, values, color=color, label=f"{split}, top-{top}", marker=marker)
    _set_error_axis(errors)
    _draw_rates(rates, [line for line in lines if line.get("learning_rates")])
    losses.legend()
    errors.legend()
    return figure


def _set_error_axis(axes: Axes) -> None:
    """Sets a logarithmic axis where errors are small, otherwise a linear one from zero."""
    errors = np.concatenate([line.get_ydata() for line in axes.lines])
    positive = errors[errors > 0.0]
    if positive.size and positive.min() < SMALL_ERROR:
        low = 0.8 * positive.min()
        _set_logarithmic(axes, low, 1.25 * positive.max())
        if len(positive) < len(errors):
            axes.set_title("Error (%; zero is drawn on the axis)")
        for line in axes.lines:  # the logarithm has no zero
            line.set(ydata=np.maximum(line.get_ydata(), low), clip_on=False)
    else:
        axes.set_ylim(0.0, 1.06 * errors.max() or 1.0)


def _draw_rates(axes: Axes, lines: Lines) -> None:
    """Draws one line for each sequence of rates; names with the same sequence share a line."""
    if not lines:
        return
    sequences: dict[tuple[float, ...], list[str]] = {}
    for name in lines[-1]["learning_rates"]:
        key = tuple(line["learning_rates"][name] for line in lines)
        sequences.setdefault(key, []).append(name)
    rates = np.array(list(sequences))
    positive = rates[rates > 0.0]
    low, high = (positive.min() / 2.0, positive.max() * 2.0) if positive.size else (1e-4, 1.0)
    if (rates == 0.0).any():
        axes.set_title("Learning rate (zero is drawn on the axis)")
    _set_logarithmic(axes, low, high)
    epochs = [line["epoch"] for line in lines]
    options: Any = {"where": "post", "marker": "o" if len(lines) == 1 else None, "clip_on": False}
    for index, (sequence, names) in enumerate(sequences.items()):
        label = style.shorten(", ".join(names), 36)
        width = 1.4 if index else 2.8  # stays visible below a line that coincides
        # The logarithm has no zero.
        axes.step(epochs, np.maximum(sequence, low), label=label, linewidth=width, **options)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _set_logarithmic(axes: Axes, low: float, high: float) -> None:
    """Sets a logarithmic axis with plain numbers: powers of ten, and 2 and 5 times these."""
    axes.set(yscale="log", ylim=(low, high))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 2e4 * low else (1.0,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()


@style.styled
def kernels(kernel: np.ndarray, towers: int = 1) -> Figure:
    """Draws every kernel of a first layer, one tower above the other.

    Args:
      kernel: the layer's weights, float[height, width, 1 or 3, kernels].
      towers: into how many equal parts the last axis is cut.

    Returns:
      A figure with one image for each tower.
    """
    mosaics = kernel_mosaic(kernel, towers)
    height, width = mosaics.shape[1:3]
    zoom = math.ceil(2500 / width)
    figure = Figure(figsize=(8.0, max(8.0 * towers * height / width, 2.0)), layout="compressed")
    rows, columns, channels, count = kernel.shape
    figure.suptitle(f"Kernels of the first layer: {count} of {rows}x{columns}x{channels}")
    for tower, mosaic in enumerate(mosaics, start=1):
        axes = figure.add_subplot(towers, 1, tower, xticks=[], yticks=[])
        # Enlarged first: smoothly downscaling a large image keeps all weights equally wide.
        enlarged = np.kron(mosaic, np.ones((zoom, zoom, 1)))
        axes.imshow(enlarged, interpolation="hanning")
        axes.spines[:].set_visible(False)
        axes.set_ylabel(f"tower {tower}" if towers > 1 else "")
    axes.set_xlabel("Mid-gray is zero; each kernel has its own scale.")
    return figure


def kernel_mosaic(kernel: np.ndarray, towers: int = 1) -> np.ndarray:
    """Lays out a first layer's kernels as images, in rows, with white lines between them.

    Args:
      kernel: the layer's weights, float[height, width, 1 or 3, kernels]; three channels are red,
        green and blue.
      towers: into how many equal parts the last axis is cut.

    Returns:
      float64[towers, rows * (height + 1) + 1, columns * (width + 1) + 1, 3], one mosaic per tower,
      in 0..1: 0 and 1 are minus and plus the largest magnitude of the kernel, 0.5 is a weight of
      zero.
    """
    height, width, _, count = kernel.shape
    per_tower = count // towers
    # About twice as wide as tall, with full rows where possible: 16 columns for the paper's 96.
    wanted = math.ceil(math.sqrt(2 * count))
    full = (columns for columns in range(wanted, 2 * wanted) if per_tower % columns == 0)
    columns = min(next(full, wanted), per_tower)
    rows = -(-per_tower // columns)
    largest = np.abs(kernel).max(axis=(0, 1, 2))
    # A kernel of zeros stays zero, mid-gray, whatever it is divided by.
    images = 0.5 + 0.5 * kernel.astype(np.float64) / np.where(largest > 0, largest, 1.0)
    mosaics = np.ones((towers, rows * (height + 1) + 1, columns * (width + 1) + 1, 3))
    for index in range(count):
        tower, within = divmod(index, per_tower)
        top, left = np.multiply(divmod(within, columns), (height + 1, width + 1)) + 1
        mosaics[tower, top : top + height, left : left + width] = images[..., index]
    return mosaics
