"""Pooling over square windows, with both rules for windows that extend past the image."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def max_pool(x: jax.Array, window: int, stride: int, *, ceil_mode: bool = False) -> jax.Array:
    """Takes each window's maximum (paper, section 3.4: windows of 3, stride 2).

    Where several elements share the maximum, the first in row-major order gets the whole gradient,
    as in PyTorch and cuDNN: after a ReLU whole windows are zero. A NaN makes its windows NaN.

    Args:
      x: `float[batch, height, width, channels]`.
      window: height and width of a window.
      stride: rows and columns between neighboring windows.
      ceil_mode: False keeps only whole windows. True is cuda-convnet's rule (CC2
        `layer.py:1164`): ceil((in - window) / stride) + 1 windows per side, the last clipped at the
        edge of the image. Windows entirely outside are left out, but there is always one.

    Returns:
      `float[batch, rows, columns, channels]` of x's type.

    Raises:
      ValueError: no window fits into the image, or a number is below 1.
    """
    padding = _end_padding(x, window, stride, ceil_mode)
    lowest = np.array(-np.inf, x.dtype)
    if jax.default_backend() != "cpu":
        sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, lowest, lax.max, sizes, strides, padding)
    # On the CPU the gradient of reduce_window takes several times as long as that of slices.
    best, *others = strided_slices(jnp.pad(x, padding, constant_values=lowest), window, stride)
    for candidate in others:
        best = jnp.where((candidate > best) | jnp.isnan(candidate), candidate, best)
    return best


def average_pool(x: jax.Array, window: int, stride: int, *, ceil_mode: bool = False) -> jax.Array:
    """Takes each window's mean; a clipped window divides by its area inside the image.

    That division is cuda-convnet's (CC1 `include/cudaconv2/conv_util.cuh:80-82`).

    Args:
      x: `float[batch, height, width, channels]`.
      window: height and width of a window.
      stride: rows and columns between neighboring windows.
      ceil_mode: as in `max_pool`.

    Returns:
      `float[batch, rows, columns, channels]` of x's type.

    Raises:
      ValueError: no window fits into the image, or a number is below 1.
    """
    padding = _end_padding(x, window, stride, ceil_mode)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    total = functools.reduce(jnp.add, strided_slices(jnp.pad(wide, padding), window, stride))
    inside = [
        np.minimum(window, length - stride * np.arange(count))
        for length, count in zip(x.shape[1:3], total.shape[1:3], strict=True)
    ]
    area = np.multiply.outer(*inside)[:, :, None].astype(wide.dtype)
    return (total / area).astype(x.dtype)


def adaptive_average_pool(x: jax.Array, output: int) -> jax.Array:
    """Averages down (or repeats up) to output x output cells, as PyTorch's AdaptiveAvgPool2d.

    Cell i covers the rows from floor(i * in / output) up to ceil((i + 1) * in / output).

    Args:
      x: `float[batch, height, width, channels]`.
      output: rows and columns of the result.

    Returns:
      `float[batch, output, output, channels]` of x's type.

    Raises:
      ValueError: `output` is below 1.
    """
    if output < 1:
        raise ValueError(f"output={output} is below 1")
    for axis in (1, 2):
        length = x.shape[axis]
        cells = [
            lax.slice_in_dim(x, i * length // output, -(-(i + 1) * length // output), axis=axis)
            for i in range(output)
        ]
        x = jnp.stack([cell.mean(axis) for cell in cells], axis)
    return x


def num_windows(length: int, window: int, stride: int, ceil_mode: bool = False) -> int:
    """Returns how many windows fit along a side, by the rules of `max_pool`; below 1: none."""
    if not ceil_mode:
        return (length - window) // stride + 1
    return min(max(-(-(length - window) // stride), 0), (length - 1) // stride) + 1


def _end_padding(x: jax.Array, window: int, stride: int, ceil_mode: bool) -> list[tuple[int, int]]:
    """Returns the padding at the end of rows and columns that makes every window whole."""
    if window < 1 or stride < 1:
        raise ValueError(f"window={window}, stride={stride}: both must be at least 1")
    padding = [(0, 0)]
    for length in x.shape[1:3]:
        steps = num_windows(length, window, stride, ceil_mode) - 1
        if steps < 0:
            raise ValueError(f"no window of {window} fits into an image of {x.shape[1:3]}")
        padding.append((0, max(0, steps * stride + window - length)))
    return [*padding, (0, 0)]


def strided_slices(x: jax.Array, window: int, stride: int) -> list[jax.Array]:
    """Returns, for each offset in a window in row-major order, that element of all windows."""
    rows, columns = ((length - window) // stride * stride + 1 for length in x.shape[1:3])
    return [
        x[:, top : top + rows : stride, left : left + columns : stride]
        for top, left in itertools.product(range(window), repeat=2)
    ]
