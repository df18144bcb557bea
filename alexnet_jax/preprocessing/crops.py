"""Test-time views of an image: its center crop, ten crops, or all of it resized."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.preprocessing.augment import Augmentation, Statistics, center_crop, subtract_mean


class Crops(NamedTuple):
    """Offsets of crops of one size in an image.

    Attributes:
      top, left: int32[n], pixels from the image's upper left corner.
      mirrored: bool[n], whether the crop is then mirrored left to right.
    """

    top: np.ndarray
    left: np.ndarray
    mirrored: np.ndarray


def ten_crops(height: int, width: int, size: int) -> Crops:
    """Returns the ten views of paper section 4.1.

    In the order of the authors' convdata_jpeg.py:224-233: the corners top left and top right, the
    center, the corners bottom left and bottom right, then their mirror images.

    Args:
      height: of the images, in pixels.
      width: of the images, in pixels.
      size: height and width of a crop.
    """
    below, right = height - size, width - size
    top = np.array([0, 0, below // 2, below, below], np.int32)
    left = np.array([0, right, right // 2, 0, right], np.int32)
    return Crops(np.tile(top, 2), np.tile(left, 2), np.repeat([False, True], 5))


def center_view(images: jax.Array, statistics: Statistics, augmentation: Augmentation) -> jax.Array:
    """Returns the input float32[batch, crop, crop, channels] of center crops of a uint8 batch."""
    return subtract_mean(center_crop(images, augmentation.crop_size), statistics, augmentation)


def crop_view(
    images: jax.Array, statistics: Statistics, augmentation: Augmentation, crop: Crops
) -> jax.Array:
    """Returns the input float32[batch, crop, crop, channels] of one crop of a uint8 batch.

    Args:
      images: uint8[batch, height, width, channels].
      statistics: the training split's; the mean is subtracted as in training.
      augmentation: the size of the crop, and how the mean is subtracted.
      crop: one crop, its arrays scalars.
    """
    size, mean = augmentation.crop_size, statistics["mean"]

    def cut(image: jax.Array) -> jax.Array:
        starts = (crop.top, crop.left, 0)
        part = jax.lax.dynamic_slice(image, starts, (size, size, image.shape[-1]))
        return jnp.where(crop.mirrored, part[:, ::-1], part)

    if augmentation.mean_at_crop and mean.shape[0] > 1:
        statistics = {"mean": cut(mean)}
    return subtract_mean(jax.vmap(cut)(images), statistics, augmentation)


def whole_view(
    images: jax.Array,
    statistics: Statistics,
    augmentation: Augmentation,
    size: int | None = None,
    mirrored: jax.Array | bool = False,
) -> jax.Array:
    """Returns the input float32[batch, height, width, channels] of whole images.

    A mean image is subtracted whole, before both are resized: its center crop, which is subtracted
    from crops, would not cover the image. For images of another size it is resized to theirs.

    Args:
      images: uint8[batch, height, width, channels].
      statistics: the training split's.
      augmentation: the factor on the pixels.
      size: height and width to resize to, bilinear and with antialiasing; None: not resized.
      mirrored: bool scalar, whether images are mirrored left to right.
    """
    count, height, width, channels = images.shape
    mean = jax.image.resize(statistics["mean"], (height, width, channels), "linear")
    pixels = jnp.where(mirrored, images[:, :, ::-1], images).astype(jnp.float32) - mean
    pixels *= jnp.asarray(augmentation.scale, jnp.float32)
    return jax.image.resize(pixels, (count, size or height, size or width, channels), "linear")
