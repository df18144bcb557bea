"""The kernels of a first layer as images, like the paper's Figure 3."""

import math

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.plots import style


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
    size = (8.0, max(8.0 * towers * height / width, 2.0))
    figure = Figure(figsize=size, layout="compressed")
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
