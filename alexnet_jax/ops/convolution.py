"""Convolution in NHWC/HWIO, formulated for each backend so that it trains fast there.

`locally_connected` is the convolution with separate weights at each position.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from alexnet_jax.ops.pooling import strided_slices

SidePadding = tuple[tuple[int, int], tuple[int, int]]

# On the CPU, weight gradients are summed over parts of the batch with at least this many images.
_MIN_PART = 8


def convolution(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int | SidePadding, groups: int = 1
) -> jax.Array:
    """Convolves images with a kernel; only whole windows count, so the size is rounded down.

    cuda-convnet rounds up (CHM `layer.py:1004`): its conv1 takes 224 x 224 images, stride 4 and
    padding ((0, 3), (0, 3)).

    Args:
      x: `float[batch, height, width, channels]`.
      kernel: `float[rows, columns, channels / groups, filters]`, of x's type.
      stride: rows and columns between neighboring windows.
      padding: zeros on each side, or ((top, bottom), (left, right)).
      groups: number of equal slices of the channels, each of which feeds its own slice of the
        filters.

    Returns:
      `float[batch, rows, columns, filters]` of x's type.

    Raises:
      ValueError: channels, filters and groups do not agree.
    """
    channels, filters = x.shape[-1], kernel.shape[-1]
    if kernel.shape[2] * groups != channels or filters % groups:
        raise ValueError(
            f"kernel {kernel.shape} in {groups} groups cannot take {channels} channels"
        )
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    if jax.default_backend() != "cpu":
        return _convolve(x, kernel, stride, padding, feature_group_count=groups)
    # XLA's CPU backend trains a grouped convolution three to four times slower than its parts.
    pairs = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([_convolve_on_cpu(*pair, stride, padding) for pair in pairs], -1)


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
    windows = jnp.concatenate(strided_slices(padded, size, stride=1), axis=-1)
    return jnp.einsum("bhwi,hwio->bhwo", windows, kernel)


def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int, padding: SidePadding, **options: Any
) -> jax.Array:
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), **options}
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, **options)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _convolve_on_cpu(
    x: jax.Array, kernel: jax.Array, stride: int, padding: SidePadding
) -> jax.Array:
    return _convolve(x, kernel, stride, padding)


@functools.partial(_convolve_on_cpu.defjvp, symbolic_zeros=True)
def _tangent_on_cpu(
    stride: int,
    padding: SidePadding,
    primals: tuple[jax.Array, jax.Array],
    tangents: tuple[jax.Array | SymbolicZero, jax.Array | SymbolicZero],
) -> tuple[jax.Array, jax.Array]:
    """The product rule, formulated so that its transpose, the gradients, runs fast.

    XLA's CPU backend has fast code only for NHWC with HWIO. It transposes convolutions of other
    layouts into these, but not inside a loop or a branch, where they run some seventy times slower.
    """
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    out = _convolve_on_cpu(x, kernel, stride, padding)
    terms = []
    if not isinstance(x_dot, SymbolicZero):
        # Its transpose, the gradient of x, is then also a convolution of NHWC with HWIO.
        layout, swapped = ("NHWC", "HWOI", "NHWC"), kernel.transpose(0, 1, 3, 2)
        terms.append(_convolve(x_dot, swapped, stride, padding, dimension_numbers=layout))
    if not isinstance(kernel_dot, SymbolicZero):
        terms.append(_convolve_in_parts(x, kernel_dot, stride, padding))
    return out, functools.reduce(jnp.add, terms)


def _convolve_in_parts(
    x: jax.Array, kernel: jax.Array, stride: int, padding: SidePadding
) -> jax.Array:
    """Convolves the batch part by part, so that the transpose adds up the gradients of the parts.

    The weight gradient is a convolution in which the batch takes the role of the channels. XLA's
    CPU backend runs it two to three times faster over 8 images than over 64 or more.
    """
    batch = x.shape[0]
    count = max(n for n in range(1, max(1, batch // _MIN_PART) + 1) if batch % n == 0)
    # Part i holds images i, i + count, ...: then each device of a sharded batch has its share.
    parts = jnp.unstack(x.reshape(batch // count, count, *x.shape[1:]), axis=1)
    swapped, layout = kernel.transpose(2, 0, 1, 3), ("CHWN", "IHWO", "HWNC")
    out = [
        _convolve(part.transpose(3, 1, 2, 0), swapped, stride, padding, dimension_numbers=layout)
        for part in parts
    ]
    stacked = jnp.stack([part.transpose(2, 0, 1, 3) for part in out], axis=1)
    return stacked.reshape(batch, *stacked.shape[2:])
