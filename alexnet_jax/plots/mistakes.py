"""A page of mistakes: what each picture is, and what the net was sure it is."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from alexnet_jax.plots.drawing import styled
from alexnet_jax.plots.pages import (
    BAR_HEIGHT,
    CORRECT_COLOR,
    LEGEND_HEIGHT,
    OTHER_COLOR,
    draw_bars,
    draw_legend,
    picture_grid,
)


@styled
def mistakes_page(
    images: ArrayLike,
    files: Sequence[str],
    predicted: Sequence[tuple[str, float]],
    correct: Sequence[tuple[str, float]],
    *,
    title: str,
    columns: int = 5,
) -> Figure:
    """Draw pictures with the class they were taken for and their own, each with its probability.

    Args:
        images: uint8 pictures, [n, height, width, 1 or 3].
        files: The name of each picture's file, written under it.
        predicted: The class each was taken for, and its probability in [0, 1].
        correct: The class each is of, and its probability.
        title: Written above all.
        columns: The most pictures in a row.

    Raises:
        ValueError: The arrays do not fit one another.
    """
    if not len(np.asarray(images)) == len(files) == len(predicted) == len(correct):
        raise ValueError("Pictures, files, predicted and correct classes are not equally many.")
    figure, spaces = picture_grid(
        images, files, title=title, columns=columns, header=LEGEND_HEIGHT, space=2 * BAR_HEIGHT
    )
    for axes, *rows in zip(spaces, predicted, correct, strict=True):
        names, chances = zip(*rows, strict=True)
        draw_bars(axes, np.array(chances), names, (OTHER_COLOR, CORRECT_COLOR))
    draw_legend(figure, "predicted")
    return figure
