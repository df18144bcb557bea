"""The kernels of a first layer as images, in the manner of the paper's Figure 3."""

import math

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from alexnet_jax.errors import InputError
from alexnet_jax.plots import style


@style.styled
def kernels(kernel: ArrayLike, towers: int = 1, *, common_scale: bool = False) -> Figure:
    """Draws every kernel of a first layer, one tower above the other.

    Args:
      kernel: the layer's weights, float[height, width, 1 or 3, kernels].
      towers: into how many equal parts the last axis is cut.
      common_scale: see `kernel_mosaic`.

    Returns:
      A figure with one image for each tower.

    Raises:
      InputError: see `kernel_mosaic`.
    """
    mosaics = kernel_mosaic(kernel, towers, common_scale=common_scale)
    height, width = mosaics.shape[1:3]
    zoom = math.ceil(2500 / width)
    figure = Figure(figsize=(8.0, max(8.0 * towers * height / width, 2.0)), layout="compressed")
    rows, columns, channels, count = np.shape(kernel)
    figure.suptitle(f"Kernels of the first layer: {count} of {rows}x{columns}x{channels}")
    for tower, mosaic in enumerate(mosaics, start=1):
        axes = figure.add_subplot(towers, 1, tower, xticks=[], yticks=[])
        # Enlarged first: reducing a large image smoothly leaves all weights equally wide.
        enlarged = np.kron(mosaic, np.ones((zoom, zoom, 1)))
        axes.imshow(enlarged, interpolation="hanning")
        axes.spines[:].set_visible(False)
        if towers > 1:
            axes.set_ylabel(f"tower {tower}")
    scaled = "all kernels share one scale" if common_scale else "each kernel has its own scale"
    axes.set_xlabel(f"Mid-gray is zero; {scaled}.")
    return figure


def kernel_mosaic(
    kernel: ArrayLike, towers: int = 1, *, common_scale: bool = False
) -> NDArray[np.float64]:
    """Lays out a first layer's kernels as images, in rows, with white lines between them.

    Args:
      kernel: the layer's weights, float[height, width, 1 or 3, kernels]; three channels are red,
        green and blue.
      towers: into how many equal parts the last axis is cut.
      common_scale: scale all kernels by the largest magnitude among them instead of each by its
        own.

    Returns:
      float64[towers, rows * (height + 1) + 1, columns * (width + 1) + 1, 3], one mosaic a tower, in
      [0, 1]: 0 and 1 are minus and plus the largest magnitude, 0.5 is a weight of zero.

    Raises:
      InputError: the kernel has another shape, is not finite, or does not divide by `towers`.
    """
    weights = np.asarray(kernel, dtype=np.float64)
    if weights.ndim != 4 or weights.shape[2] not in (1, 3):
        raise InputError(
            f"Kernels of shape {weights.shape} cannot be drawn as images: give the first layer's "
            "weights, [height, width, 1 or 3, kernels]."
        )
    if not np.isfinite(weights).all():
        raise InputError("The kernels to draw are not all finite: take an earlier checkpoint.")
    height, width, channels, count = weights.shape
    if count % towers:
        raise InputError(f"{count} kernels do not divide by {towers} towers: name another number.")
    largest = np.abs(weights).max(axis=None if common_scale else (0, 1, 2), keepdims=True)
    # A kernel of zeros stays zero, mid-gray, whatever it is divided by.
    images = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1.0)
    per_tower = count // towers
    columns = _mosaic_columns(per_tower, count)
    rows = -(-per_tower // columns)
    tiles = np.ones((towers, rows * columns, height + 1, width + 1, channels))
    images = np.moveaxis(images, 3, 0).reshape(towers, per_tower, height, width, channels)
    tiles[:, :per_tower, 1:, 1:] = images
    grid = tiles.reshape(towers, rows, columns, height + 1, width + 1, channels)
    shape = (towers, rows * (height + 1), columns * (width + 1), channels)
    mosaics = np.swapaxes(grid, 2, 3).reshape(shape)
    mosaics = np.pad(mosaics, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1.0)
    return np.broadcast_to(mosaics, (*mosaics.shape[:3], 3))


def _mosaic_columns(per_tower: int, count: int) -> int:
    """Returns how many kernels to put in a row: the paper's 16 for its 96.

    The figure is about twice as wide as tall, and its rows are full where possible.
    """
    wanted = math.ceil(math.sqrt(2 * count))
    full = [columns for columns in range(wanted, 2 * wanted) if per_tower % columns == 0]
    return min(full[0] if full else wanted, per_tower)
