"""Pages of images: a plain grid, predictions as in the paper's Figure 4, and mistakes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.plots.style import (
    ORANGE,
    SKY_BLUE,
    legend_below,
    new_figure,
    percent,
    shorten,
    styled,
)

MOST_BARS = 5
CORRECT_COLOR, OTHER_COLOR = ORANGE, SKY_BLUE


class Bar(NamedTuple):
    """A label under an image, and its probability in 0..1."""

    label: str
    probability: float
    color: str = OTHER_COLOR


@styled
def image_grid(
    images: ArrayLike,
    captions: Sequence[str] | None = None,
    *,
    title: str = "",
    columns: int = 4,
    bars: Sequence[Sequence[Bar]] = (),
) -> Figure:
    """Lays images out in rows, each over its caption and its bars.

    Args:
      images: uint8[n, height, width, 1 or 3].
      captions: n lines, shortened to the width of an image; None leaves them out.
      title: written above all.
      columns: the most images in a row.
      bars: for each image its bars, from the top; equally many for all.

    Raises:
      ValueError: the images have another shape or type, or the captions another number.
    """
    pixels = _checked(images)
    count, height, width = pixels.shape[:3]
    if captions is not None and len(captions) != count:
        raise ValueError(f"{count} images need {count} captions, not {len(captions)}.")
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    heights = [1.75 * height / width] + ([0.19 * len(bars[0])] if bars else [])
    figure = new_figure(2.0 * columns, (sum(heights) + 0.4) * rows + 0.4, "compressed")
    figure.suptitle(title)
    grid = figure.add_gridspec(rows * len(heights), columns, height_ratios=heights * rows)
    for index, image in enumerate(pixels):
        row, column = index // columns * len(heights), index % columns
        axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
        # A frame, since many images (digits, products) are white at their edges.
        axes.spines[:].set(visible=True, color="#C8C8C8", linewidth=0.6)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        if captions is not None:
            _clip(axes.set_xlabel(shorten(captions[index], 24), fontsize=8.5), axes)
        if bars:
            _draw_bars(figure.add_subplot(grid[row + 1, column]), bars[index])
    return figure


@styled
def prediction_page(
    images: ArrayLike,
    labels: ArrayLike | None,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    *,
    title: str = "",
    columns: int = 4,
) -> Figure:
    """Draws images over their most probable labels, as the left half of the paper's Figure 4.

    Under each image is its correct label, then a bar for each of its five most probable labels (all
    of them if there are fewer), as long as it is probable; the bar of the correct label, if it is
    among them, has a color of its own.

    Args:
      images: uint8[n, height, width, 1 or 3].
      labels: int[n], correct classes; None if they are not known.
      probabilities: float[n, classes], in 0..1.
      class_names: a name for each class, shortened where it does not fit.
      title: written above all.
      columns: the most images in a row.

    Raises:
      ValueError: the arrays do not fit one another.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    correct = None if labels is None else np.asarray(labels).tolist()
    _check_fit(len(np.asarray(images)), correct, chances, len(class_names))
    best = np.argsort(-chances, axis=1, kind="stable")[:, :MOST_BARS].tolist()
    bars = [
        [
            Bar(
                class_names[label],
                chances[row, label],
                CORRECT_COLOR if correct is not None and label == correct[row] else OTHER_COLOR,
            )
            for label in best[row]
        ]
        for row in range(len(chances))
    ]
    captions = None if correct is None else [class_names[label] for label in correct]
    figure = image_grid(images, captions, title=title, columns=columns, bars=bars)
    if correct is not None:
        _draw_legend(figure, "other label")
    return figure


@styled
def mistakes_page(
    images: ArrayLike,
    files: Sequence[str],
    predicted: Sequence[tuple[str, float]],
    correct: Sequence[tuple[str, float]],
    *,
    title: str,
) -> Figure:
    """Draws images with the class they were taken for and their own, each with its probability.

    Args:
      images: uint8[n, height, width, 1 or 3].
      files: the name of each image's file, written under it.
      predicted: the most probable class of each, and its probability in 0..1.
      correct: the correct class of each, and its probability.
      title: written above all.

    Raises:
      ValueError: the arrays do not fit one another.
    """
    bars = [
        (Bar(*first), Bar(*own, CORRECT_COLOR))
        for first, own in zip(predicted, correct, strict=True)
    ]
    if not len(np.asarray(images)) == len(files) == len(bars):
        raise ValueError("Images, files, predicted and correct classes are not equally many.")
    figure = image_grid(images, files, title=title, columns=5, bars=bars)
    _draw_legend(figure, "predicted")
    return figure


def _checked(images: ArrayLike) -> NDArray[np.uint8]:
    pixels = np.asarray(images)
    shaped = pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.size > 0
    if not shaped or pixels.dtype != np.uint8:
        raise ValueError(
            "Images must be uint8 [n, height, width, 1 or 3] with n > 0, "
            f"not {pixels.dtype} {pixels.shape}."
        )
    return pixels


def _check_fit(
    count: int, correct: Sequence[int] | None, chances: NDArray[np.float64], classes: int
) -> None:
    if chances.shape != (count, classes):
        raise ValueError(
            f"{count} images and {classes} class names do not fit probabilities of shape "
            f"{chances.shape}."
        )
    if correct is not None and len(correct) != count:
        raise ValueError(f"{count} images need {count} labels, not {len(correct)}.")
    if correct is not None and not all(0 <= label < classes for label in correct):
        raise ValueError(f"Labels must lie in 0..{classes - 1}: {sorted(set(correct))}.")


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draws one bar under the other; axes of full width are a probability of one."""
    labels, probabilities, colors = zip(*bars, strict=True)
    axes.set_facecolor("#F3F3F3")
    axes.spines[:].set_visible(False)
    axes.barh(range(len(bars)), probabilities, height=0.84, color=colors)
    axes.set(xlim=(0.0, 1.0), ylim=(len(bars) - 0.5, -0.5), xticks=[], yticks=[])
    for row, (label, probability) in enumerate(zip(labels, probabilities, strict=True)):
        name = axes.text(0.02, row, shorten(label, 23), va="center_baseline", fontsize=7.5)
        _clip(name, axes, 0.81)
        axes.text(0.98, row, percent(probability), ha="right", va="center_baseline", fontsize=7.5)


def _clip(text: Text, axes: Axes, width: float = 1.0) -> None:
    """Cuts a text off at the width of its axes: no count of letters fits every name."""
    everywhere = Rectangle((0.0, -9.0), width, 18.0, transform=axes.transAxes)
    text.set(clip_on=True, clip_path=everywhere)


def _draw_legend(figure: Figure, other: str) -> None:
    """Explains the two colors, below all images."""
    entries = {"correct label": CORRECT_COLOR, other: OTHER_COLOR}
    handles = [Patch(color=color, label=label) for label, color in entries.items()]
    legend_below(figure, handles=handles, ncols=2)
