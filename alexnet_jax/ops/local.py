"""Locally connected layers: convolutions with separate weights at each position."""

import itertools

import jax
import jax.numpy as jnp


def locally_connected(x: jax.Array, kernel: jax.Array, size: int) -> jax.Array:
    """Applies a separate kernel at each position of zero-padded images (cuda-convnet's "local").

    Args:
      x: `float[batch, height, width, channels]`.
      kernel: `float[height, width, size * size * channels, filters]`; the third axis is a window
        flattened in row, column, channel order.
      size: height and width of a window, odd.

    Returns:
      `float[batch, height, width, filters]`.

    Raises:
      ValueError: `size` is even, or the shapes do not agree.
    """
    height, width, channels = x.shape[1:]
    if size % 2 == 0 or kernel.shape[:3] != (height, width, size * size * channels):
        raise ValueError(f"a kernel {kernel.shape} of size {size} does not fit images {x.shape}")
    reach = size // 2
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    windows = [
        padded[:, top : top + height, left : left + width]
        for top, left in itertools.product(range(size), repeat=2)
    ]
    return jnp.einsum("bhwi,hwio->bhwo", jnp.concatenate(windows, axis=-1), kernel)
