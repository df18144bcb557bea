"""Pages of images: a plain grid, and predictions as in the paper's Figure 4."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text

from alexnet_jax.plots import style

MOST_BARS = 5
CORRECT_COLOR, OTHER_COLOR = style.ORANGE, style.SKY_BLUE


class Bar(NamedTuple):
    """A label under an image.

    Attributes:
      label: the text.
      probability: in 0..1.
      correct: whether it is the correct label; None where that is not known.
    """

    label: str
    probability: float
    correct: bool | None = False


@style.styled
def image_grid(
    images: np.ndarray,
    captions: Sequence[str],
    bars: Sequence[Sequence[Bar]] = (),
    *,
    title: str = "",
    columns: int = 5,
) -> Figure:
    """Lays images out in rows, each above its caption and its bars.

    Args:
      images: uint8[n, height, width, 1 or 3].
      captions: n lines, shortened to the width of an image.
      bars: the bars of each image from top to bottom, equally many for all; or none.
      title: of the figure.
      columns: the maximum number of images in a row.
    """
    count, height, width, _ = np.shape(images)
    columns = min(columns, count)
    rows = -(-count // columns)
    heights = [1.75 * height / width, 0.19 * len(bars[0])] if bars else [1.75 * height / width]
    figure = Figure(figsize=(2.0 * columns, (sum(heights) + 0.4) * rows + 0.4), layout="compressed")
    figure.suptitle(title)
    grid = figure.add_gridspec(rows * len(heights), columns, height_ratios=heights * rows)
    cells = zip(images, captions, bars or [()] * count, strict=True)
    for index, (image, caption, below) in enumerate(cells):
        row, column = index // columns * len(heights), index % columns
        axes = figure.add_subplot(grid[row, column], xticks=[], yticks=[])
        # A frame, since many images (digits, products) are white at their edges.
        axes.spines[:].set(visible=True, color="#C8C8C8", linewidth=0.6)
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        _clip(axes.set_xlabel(style.shorten(caption, 24), fontsize=8.5), axes)
        if below:
            _draw_bars(figure.add_subplot(grid[row + 1, column]), below)
    if any(bar.correct is not None for below in bars for bar in below):
        entries = {"correct label": CORRECT_COLOR, "other label": OTHER_COLOR}
        handles = [Patch(color=color, label=label) for label, color in entries.items()]
        style.legend_below(figure, handles=handles, ncols=2)
    return figure


def prediction_page(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> Figure:
    """Draws images above their most probable labels, like the left half of the paper's Figure 4.

    Under each image is its correct label, then a bar for each of its five most probable labels (all
    of them if there are fewer), whose length is the probability. The bar of the correct label has
    its own color.

    Args:
      images: uint8[n, height, width, 1 or 3].
      labels: int[n], correct classes.
      probabilities: float[n, classes], in 0..1.
      class_names: a name for each class, shortened where it does not fit.
      title: of the figure.
    """
    names = np.array(class_names, object)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :MOST_BARS]
    shares = np.take_along_axis(probabilities, best, axis=1)
    columns = zip(names[best], shares, best == labels[:, None], strict=True)
    bars = [list(map(Bar, *column)) for column in columns]
    return image_grid(images, names[labels], bars, title=title)


def _draw_bars(axes: Axes, bars: Sequence[Bar]) -> None:
    """Draws the bars from top to bottom; the full width of the axes is a probability of one."""
    axes.set_facecolor("#F3F3F3")
    axes.spines[:].set_visible(False)
    axes.set(xlim=(0.0, 1.0), ylim=(len(bars) - 0.5, -0.5), xticks=[], yticks=[])
    for row, bar in enumerate(bars):
        color = CORRECT_COLOR if bar.correct else OTHER_COLOR
        axes.barh(row, bar.probability, height=0.84, color=color)
        middle = {"verticalalignment": "center_baseline", "fontsize": 7.5}
        _clip(axes.text(0.02, row, style.shorten(bar.label, 23), middle), axes, 0.81)
        axes.text(0.98, row, style.percent(bar.probability), middle, ha="right")


def _clip(text: Text, axes: Axes, width: float = 1.0) -> None:
    """Cuts a text off at the width of its axes: no character limit fits every name."""
    text.set(clip_on=True, clip_path=Rectangle((0, -9), width, 18, transform=axes.transAxes))
