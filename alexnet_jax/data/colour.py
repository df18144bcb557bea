"""Noise along the principal axes of a data set's colours (paper 4.1), as text and code have it."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class ColourNoise:
    """Which noise is added to the colours of training pictures.

    Attributes:
      convention: "code": the factors are times the standard deviations along the axes, and the
        picture, less its mean and with the noise, is divided by 1 + std (authors'
        convdata_jpeg.py:57-66,155-179). "text": they are times the eigenvalues of the covariance
        of pixels in 0..1 (section 4.1 names no unit; of pixels in 0..255 the noise would be a
        thousand grey levels), and nothing is divided.
      std: standard deviation of the three factors, drawn once for a picture and presentation.
      until: steps with noise; None: all. After them the picture is not divided either.
    """

    convention: str
    std: float
    until: int | None


def add_colour_noise(
    pixels: jax.Array,
    keys: jax.Array,
    statistics: Mapping[str, jax.Array],
    noise: ColourNoise,
    step: jax.Array,
) -> jax.Array:
    """Returns pictures with a shift of colour each.

    Args:
      pixels: float (batch, height, width, channels), in grey levels 0..255 less the mean.
      keys: (batch,) typed random keys, one for each picture.
      statistics: `axes`, (channels, channels) with the principal axes as columns, and
        `deviations`, (channels,) along them in grey levels.
      noise: what to do.
      step: int scalar, steps done.
    """
    axes, deviations = statistics["axes"], statistics["deviations"]
    factors = noise.std * jax.vmap(lambda key: jax.random.normal(key, deviations.shape))(keys)
    coded = noise.convention == "code"
    lengths = factors * (deviations if coded else deviations**2 / 255)
    # Added one by one: the same bits for any part of the batch; and XLA's CPU backend (jaxlib
    # 0.10.2) fuses a reduction here into wrong rows of large batches (jax-ml/jax issue 39103).
    parts = [axes[:, axis] * lengths[:, axis, None] for axis in range(len(deviations))]
    shifts = functools.reduce(jnp.add, parts)
    divisor = jnp.float32(1 + noise.std if coded else 1)
    if noise.until is not None:
        on = step < noise.until
        shifts, divisor = jnp.where(on, shifts, 0), jnp.where(on, divisor, 1)
    return (pixels + shifts[:, None, None, :]) / divisor
