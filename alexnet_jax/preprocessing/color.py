"""Noise along the principal components of the colors (paper 4.1), by its text or its code."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

Statistics = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class ColorNoise:
    """Which noise is added to the colors of training images.

    Attributes:
      convention: "code": the factors multiply the standard deviations along the components, and
        the image, minus its mean and with the noise, is divided by 1 + std (authors'
        convdata_jpeg.py:57-66,155-179). "text": they multiply the eigenvalues of the covariance of
        pixels in 0..1 (section 4.1 gives no unit; for pixels in 0..255 the noise would be a
        thousand gray levels), and nothing is divided.
      std: standard deviation of the three factors, drawn for each presentation of an image.
      until: steps with noise; None: all. After them the image is not divided either.
    """

    convention: str
    std: float
    until: int | None


def add_color_noise(
    pixels: jax.Array,
    keys: jax.Array,
    statistics: Statistics,
    noise: ColorNoise,
    step: jax.Array,
) -> jax.Array:
    """Returns images with a shift of color each.

    Args:
      pixels: float32[batch, height, width, channels], in gray levels 0..255 minus the mean.
      keys: typed random keys [batch], one for each image.
      statistics: `pca_components`, [channels, channels] with the principal components as columns,
        and `pca_std`, [channels] along them in gray levels.
      noise: what to do.
      step: int scalar, steps done.
    """
    components, pca_std = statistics["pca_components"], statistics["pca_std"]
    factors = noise.std * jax.vmap(lambda key: jax.random.normal(key, pca_std.shape))(keys)
    as_coded = noise.convention == "code"
    lengths = factors * (pca_std if as_coded else pca_std**2 / 255)
    # Added one by one: the same bits for any part of the batch; and XLA's CPU backend (jaxlib
    # 0.10.2) fuses a reduction here into wrong rows of large batches (jax-ml/jax issue 39103).
    parts = [components[:, axis] * lengths[:, axis, None] for axis in range(len(pca_std))]
    shifts = functools.reduce(jnp.add, parts)
    divisor = jnp.float32(1 + noise.std if as_coded else 1)
    if noise.until is not None:
        on = step < noise.until
        shifts, divisor = jnp.where(on, shifts, 0), jnp.where(on, divisor, 1)
    return (pixels + shifts[:, None, None, :]) / divisor
