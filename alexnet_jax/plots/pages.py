"""Pages of pictures: a plain grid, and predictions in the manner of the paper's Figure 4."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.plots.drawing import (
    DPI,
    ORANGE,
    SKY_BLUE,
    new_figure,
    place,
    shorten,
    styled,
    wrap,
    write,
)

# Inches, but for the sizes of letters (points). A picture is 224 pixels wide.
PICTURE_WIDTH = 1.75
GAP = 0.25
PADDING = 0.0625
CAPTION_HEIGHT = 0.25
CAPTION_SIZE = 9.0
TITLE_SIZE = 12.0
TITLE_LINE = 0.21875
LEGEND_HEIGHT = 0.1875
BAR_HEIGHT = 0.1875
BAR_TEXT_SIZE = 7.5
PERCENT_WIDTH = 0.4

# Pictures up to this many pixels wide are shown as they are, in squares; larger ones are smoothed.
LARGEST_PIXELATED = 64

MOST_BARS = 5
CORRECT_COLOR, OTHER_COLOR = ORANGE, SKY_BLUE


class PictureGrid(NamedTuple):
    """A page of pictures, and the room left under each of them."""

    figure: Figure
    spaces: list[Axes]


@styled
def picture_grid(
    images: ArrayLike,
    captions: Sequence[str] | None = None,
    *,
    title: str | None = None,
    columns: int = 4,
    header: float = 0.0,
    space: float = 0.0,
) -> PictureGrid:
    """Lay pictures out in rows, each with one line of text under it.

    Args:
        images: uint8 pictures, [n, height, width, 1 or 3].
        captions: n lines, shortened to the width of a picture; None leaves no room for them.
        title: Written above all, in as many lines as it needs.
        columns: The most pictures in a row.
        header: Inches to leave free under the title.
        space: Inches to leave free under each caption.

    Returns:
        The figure and, if `space` is not 0, n empty axes as wide as a picture and `space` tall.

    Raises:
        ValueError: The pictures have another shape or type, or the captions another number.
    """
    pictures = _checked(images)
    count, height, width = pictures.shape[:3]
    if captions is not None and len(captions) != count:
        raise ValueError(f"{count} pictures need {count} captions, not {len(captions)}.")
    columns = min(columns, count)
    picture_height = round(PICTURE_WIDTH * height / width * DPI) / DPI
    caption_height = CAPTION_HEIGHT if captions is not None else PADDING
    page_width = columns * (PICTURE_WIDTH + GAP) + GAP
    titles = wrap(title or "", page_width - 2 * GAP, TITLE_SIZE)
    top = GAP + len(titles) * TITLE_LINE + header + PADDING
    row_height = picture_height + caption_height + space + GAP
    figure = new_figure(page_width, top + math.ceil(count / columns) * row_height)
    if titles:
        write(figure, GAP, GAP - PADDING, "\n".join(titles), fontsize=TITLE_SIZE)
    spaces = []
    for index, picture in enumerate(pictures):
        left = GAP + index % columns * (PICTURE_WIDTH + GAP)
        upper = top + index // columns * row_height
        _draw_picture(place(figure, left, upper, PICTURE_WIDTH, picture_height), picture)
        upper += picture_height
        if captions is not None:
            text = shorten(captions[index], PICTURE_WIDTH, CAPTION_SIZE)
            middle = left + PICTURE_WIDTH / 2
            write(figure, middle, upper + 0.05, text, ha="center", fontsize=CAPTION_SIZE)
        if space:
            spaces.append(place(figure, left, upper + caption_height, PICTURE_WIDTH, space))
    return PictureGrid(figure, spaces)


@styled
def prediction_page(
    images: ArrayLike,
    labels: ArrayLike | None,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    *,
    title: str | None = None,
    columns: int = 4,
) -> Figure:
    """Draw pictures over their most probable labels, as the left half of the paper's Figure 4.

    Under each picture stands its correct label, then a bar for each of its five most probable
    labels (all of them if there are fewer), as long as it is probable; the bar of the correct
    label, if it is among them, has a color of its own.

    Args:
        images: uint8 pictures, [n, height, width, 1 or 3].
        labels: Correct classes, integers [n]; None if they are not known.
        probabilities: [n, classes], in [0, 1].
        class_names: A name for each class, shortened where it does not fit.
        title: Written above all.
        columns: The most pictures in a row.

    Raises:
        ValueError: The arrays do not fit one another.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    correct = None if labels is None else np.asarray(labels).tolist()
    _check_fit(len(np.asarray(images)), correct, chances, len(class_names))
    bars = min(MOST_BARS, len(class_names))
    figure, spaces = picture_grid(
        images,
        None if correct is None else [class_names[label] for label in correct],
        title=title,
        columns=columns,
        header=0.0 if correct is None else LEGEND_HEIGHT,
        space=bars * BAR_HEIGHT,
    )
    best = np.argsort(-chances, axis=1, kind="stable")[:, :bars]
    for index, axes in enumerate(spaces):
        colors = [
            CORRECT_COLOR if correct is not None and label == correct[index] else OTHER_COLOR
            for label in best[index]
        ]
        names = [class_names[label] for label in best[index]]
        draw_bars(axes, chances[index, best[index]], names, colors)
    if correct is not None:
        draw_legend(figure)
    return figure


def _checked(images: ArrayLike) -> NDArray[np.uint8]:
    pictures = np.asarray(images)
    shaped = pictures.ndim == 4 and pictures.shape[-1] in (1, 3) and pictures.size > 0
    if not shaped or pictures.dtype != np.uint8:
        raise ValueError(
            "Pictures must be uint8 [n, height, width, 1 or 3] with n > 0, "
            f"not {pictures.dtype} {pictures.shape}."
        )
    return pictures


def _check_fit(
    count: int, correct: Sequence[int] | None, chances: NDArray[np.float64], classes: int
) -> None:
    if chances.shape != (count, classes):
        raise ValueError(
            f"{count} pictures and {classes} class names do not fit probabilities of shape "
            f"{chances.shape}."
        )
    if correct is not None and len(correct) != count:
        raise ValueError(f"{count} pictures need {count} labels, not {len(correct)}.")
    if correct is not None and not all(0 <= label < classes for label in correct):
        raise ValueError(f"Labels must lie in 0..{classes - 1}: {sorted(set(correct))}.")


def _draw_picture(axes: Axes, picture: NDArray[np.uint8]) -> None:
    # A frame, since many pictures (digits, products) are white at their edges.
    axes.spines[:].set(visible=True, color="#C8C8C8", linewidth=0.6)
    axes.imshow(
        picture,
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest" if picture.shape[1] <= LARGEST_PIXELATED else "hanning",
        aspect="auto",
    )


def draw_bars(
    axes: Axes, chances: NDArray[np.float64], names: Sequence[str], colors: Sequence[str]
) -> None:
    """Draw one bar under the other; axes of full width are a probability of one."""
    axes.set_facecolor("#F3F3F3")
    axes.barh(np.arange(len(chances)), chances, height=0.84, color=colors)
    axes.set(xlim=(0.0, 1.0), ylim=(len(chances) - 0.5, -0.5))
    room = PICTURE_WIDTH - PERCENT_WIDTH
    for row, (chance, name) in enumerate(zip(chances, names, strict=True)):
        for left, align, text in (
            (0.02, "left", shorten(name, room, BAR_TEXT_SIZE)),
            (0.98, "right", f"{chance:.0%}"),
        ):
            axes.text(left, row, text, ha=align, va="center_baseline", fontsize=BAR_TEXT_SIZE)


def draw_legend(figure: Figure, other: str = "other label") -> None:
    """Explain the colors of correct and `other` in the header, above the first picture."""
    first = figure.axes[0].get_position()
    figure.legend(
        handles=[
            Patch(color=CORRECT_COLOR, label="correct label"),
            Patch(color=OTHER_COLOR, label=other),
        ],
        loc="lower left",
        bbox_to_anchor=(first.x0, first.y1),
        ncols=2,
        borderpad=0.4,
        borderaxespad=0.0,
        handlelength=1.2,
        columnspacing=1.2,
    )
