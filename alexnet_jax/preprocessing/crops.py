"""What an evaluation shows the net of each picture: its center, ten crops, or all of it resized."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.preprocessing.augment import Augmentation, center_crop, subtract_mean


class Crops(NamedTuple):
    """Places of crops of one size in a picture.

    Attributes:
      top, left: int32 (n,), pixels from the picture's upper left corner.
      mirrored: bool (n,), whether the crop is then mirrored left to right.
    """

    top: np.ndarray
    left: np.ndarray
    mirrored: np.ndarray


def ten_crops(height: int, width: int, size: int) -> Crops:
    """Returns the ten views of paper section 4.1.

    In the order of the authors' convdata_jpeg.py:224-233: the corners top left and top right, the
    center, the corners bottom left and bottom right, then their mirror images.

    Args:
      height: of the pictures, in pixels.
      width: of the pictures, in pixels.
      size: height and width of a crop.
    """
    below, right = height - size, width - size
    top = np.array([0, 0, below // 2, below, below], np.int32)
    left = np.array([0, right, right // 2, 0, right], np.int32)
    return Crops(np.tile(top, 2), np.tile(left, 2), np.repeat([False, True], 5))


def center_view(
    images: jax.Array, statistics: Mapping[str, jax.Array], augmentation: Augmentation
) -> jax.Array:
    """Returns (batch, crop, crop, channels) float input of the center crops of a uint8 batch."""
    return subtract_mean(center_crop(images, augmentation.crop_size), statistics, augmentation)


def crop_view(
    images: jax.Array,
    statistics: Mapping[str, jax.Array],
    augmentation: Augmentation,
    crop: Crops,
) -> jax.Array:
    """Returns (batch, crop, crop, channels) float input of one crop of a uint8 batch.

    Args:
      images: uint8 (batch, height, width, channels).
      statistics: the training split's; the mean is subtracted as in training.
      augmentation: the size of the crop, and how the mean is subtracted.
      crop: one place, its arrays scalars.
    """
    size = augmentation.crop_size
    starts = (0, crop.top, crop.left, 0)
    part = jax.lax.dynamic_slice(images, starts, (len(images), size, size, images.shape[-1]))
    part = jnp.where(crop.mirrored, part[:, :, ::-1], part)
    mean = statistics["mean"]
    if augmentation.mean_at_crop and mean.shape[0] > 1:
        here = jax.lax.dynamic_slice(mean, starts[1:], (size, size, mean.shape[-1]))
        statistics = {"mean": jnp.where(crop.mirrored, here[:, ::-1], here)}
    return subtract_mean(part, statistics, augmentation)


def whole_view(
    images: jax.Array,
    statistics: Mapping[str, jax.Array],
    augmentation: Augmentation,
    size: int,
    mirrored: jax.Array,
) -> jax.Array:
    """Returns (batch, size, size, channels) float input of whole pictures, resized.

    A mean image is subtracted whole, each pixel at its own place, before both are resized: its
    center crop, as crops have it subtracted, would not cover the picture.

    Args:
      images: uint8 (batch, height, width, channels), square.
      statistics: the training split's.
      augmentation: the factor on the pixels.
      size: height and width to resize to, bilinear and with antialiasing.
      mirrored: bool (), whether pictures are mirrored left to right.
    """
    turned = jnp.where(mirrored, images[:, :, ::-1], images)
    pixels = turned.astype(jnp.float32) - statistics["mean"]
    pixels *= jnp.asarray(augmentation.scale, jnp.float32)
    return jax.image.resize(pixels, (len(images), size, size, images.shape[-1]), "linear")
