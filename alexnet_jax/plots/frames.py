"""The most probable classes of the frames of a video, over time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from alexnet_jax.plots import style

MOST_ROWS, MOST_FRAMES = 8, 8  # classes and frames that are shown
MOST_COLUMNS = 500  # of more frames, neighbors are averaged
_UNREADABLE = "#C8C8C8"
_COLORS = LinearSegmentedColormap.from_list("probability", ["white", style.BLUE])


def shown_frames(count: int) -> np.ndarray:
    """Returns the indices of the frames to show above a strip of `count`: evenly spread."""
    shown = min(count, MOST_FRAMES)
    return (np.arange(shown) * 2 + 1) * count // (2 * shown)


def main_classes(probabilities: np.ndarray) -> np.ndarray:
    """Returns the classes to draw, in order of time.

    Both are by squared probabilities, in which a class that is certain for a while outweighs one
    that is unlikely throughout.

    Args:
      probabilities: float[frames, classes]; NaN where a frame is unreadable.
    """
    squares = np.nan_to_num(probabilities) ** 2
    totals = squares.sum(axis=0)
    most = np.argsort(-totals, kind="stable")[:MOST_ROWS]
    most = most[totals[most] > 0]
    mean_times = np.arange(len(squares)) @ squares[:, most] / totals[most]
    ordered: np.ndarray = most[np.argsort(mean_times, kind="stable")]
    return ordered


@style.styled
def class_strip(
    images: np.ndarray,
    numbers: Sequence[int],
    probabilities: np.ndarray,
    class_names: Sequence[str],
) -> Figure:
    """Draws the probability of some classes in each frame, below some of the frames.

    Args:
      images: uint8[n, height, width, 1 or 3], the frames at `shown_frames`.
      numbers: the number of each frame, such as that in its file name.
      probabilities: float[frames, rows], in 0..1; NaN where a frame is unreadable.
      class_names: the name of each row, shortened where it does not fit.
    """
    count, rows = probabilities.shape
    figure = Figure(figsize=(10.0, 1.35 + 0.24 * rows + 0.75))
    figure.suptitle(f"The most probable classes of {count:,} frames")
    above, below = figure.subplots(2, 1, height_ratios=(1.35, 0.24 * rows))
    _draw_frames(above, images)
    columns = min(count, MOST_COLUMNS)
    parts = np.split(probabilities, np.arange(1, columns) * count // columns)
    mesh = below.imshow(
        np.transpose([part.mean(axis=0) for part in parts]),
        cmap=_COLORS.with_extremes(bad=_UNREADABLE),
        vmin=0.0,
        vmax=1.0,
        aspect="auto",
        extent=(0, count, rows, 0),
        interpolation="none",
    )
    below.set_yticks(np.arange(rows) + 0.5, [style.shorten(name, 30) for name in class_names])
    ticks = shown_frames(count)
    below.set_xticks(ticks + 0.5, [f"{numbers[index]:,}" for index in ticks])
    below.set(xlabel="frame")
    below.grid(False)
    below.hlines(np.arange(1, rows), 0, count, color="white", linewidth=2.0)
    below.tick_params(axis="y", length=0, labelsize=8.0)
    figure.colorbar(mesh, ax=below, format="{x:.0%}", ticks=(0, 0.5, 1), pad=0.01, aspect=12)
    return figure


def _draw_frames(axes: Axes, images: np.ndarray) -> None:
    """Draws frames side by side, each centered over its part of the width."""
    axes.set_axis_off()
    axes.set(xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    for index, image in enumerate(images):
        inset = axes.inset_axes(((index + 0.02) / len(images), 0.0, 0.96 / len(images), 1.0))
        inset.imshow(image, cmap="gray", vmin=0, vmax=255)
        inset.set(xticks=[], yticks=[])
        inset.grid(False)
        inset.spines[:].set(visible=True, color="#C8C8C8", linewidth=0.6)
