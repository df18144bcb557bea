"""Convolution in NHWC/HWIO, with the spelling of grouped convolution that each backend wants."""

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.ops.platform import on_cpu

Padding = int | tuple[tuple[int, int], tuple[int, int]]


def convolution(
    x: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: Padding, groups: int = 1
) -> jax.Array:
    """Slides a kernel over pictures; the output's size is rounded down.

    Args:
        x: `[batch, height, width, channels]`.
        kernel: `[rows, columns, channels / groups, filters]`, of x's type.
        stride: Rows and columns from a window to the next.
        padding: Zeros on every side, or ((top, bottom), (left, right)).
        groups: So many equal slices of the channels each feed their slice of the filters alone.

    Returns:
        `[batch, rows, columns, filters]` of x's type.

    Raises:
        ValueError: The channels or the filters do not divide into the groups.
    """
    channels, filters = x.shape[-1], kernel.shape[-1]
    if kernel.shape[2] * groups != channels or filters % groups:
        raise ValueError(
            f"groups={groups}, {channels} channels and a kernel {kernel.shape} do not agree"
        )
    if isinstance(padding, int):
        padding = ((padding, padding), (padding, padding))
    if groups == 1 or not on_cpu():
        return _convolve(x, kernel, stride, padding, groups)
    # XLA's CPU backend trains a grouped convolution three to four times slower than its parts.
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([_convolve(*part, stride, padding) for part in parts], -1)


def _convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: int,
    padding: tuple[tuple[int, int], tuple[int, int]],
    groups: int = 1,
) -> jax.Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
