"""Augmentation of a uint8 batch on the device: rotation, crop, flip, mean, color noise."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from alexnet_jax.preprocessing.color import ColorNoise, Statistics, add_color_noise

# What a view's key is folded with; 0 and 1 are those that `jax.random.split` makes two keys of.
_ROTATION, _COLOR = 2, 3


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How images become the model's input.

    Attributes:
      crop_size: height and width of the model's input, in pixels.
      random_crop: whether training crops are taken at random offsets, otherwise in the center.
      random_flip: whether half of the training images are mirrored.
      scale: factor on the pixels after the mean is subtracted, one for all or one per channel.
      crop_group_size: consecutive examples of the stream that share the offset of the crop and the
        flip.
      rotation_degrees: training images are rotated by up to this much in either direction.
      mean_at_crop: whether the mean image is cropped and mirrored with the image, as in Caffe,
        otherwise its center crop is taken (authors' convdata_jpeg.py:95,209-211).
      color: the noise on the colors in training, None for none.
    """

    crop_size: int
    random_crop: bool
    random_flip: bool
    scale: float | tuple[float, ...]
    crop_group_size: int = 1
    rotation_degrees: float = 0.0
    mean_at_crop: bool = False
    color: ColorNoise | None = None


class ExampleKeys(NamedTuple):
    """Typed random keys of the examples of a batch, [batch] each.

    Attributes:
      view: for the augmentation of each.
      crop_group: the view key of the first example of each one's crop group, for crop and flip.
      dropout: for the masks.
    """

    view: jax.Array
    crop_group: jax.Array
    dropout: jax.Array

    @classmethod
    def at(cls, key: jax.Array, stream_position: jax.Array, crop_group_size: int) -> "ExampleKeys":
        """Returns the keys of the examples at uint32[batch] positions of the stream.

        Args:
          key: of the training run.
          stream_position: of any part of a batch.
          crop_group_size: examples of a crop group; position 0 starts the first group.
        """

        @functools.partial(jax.vmap, out_axes=1)
        def pairs(position: jax.Array) -> jax.Array:
            return jax.random.split(jax.random.fold_in(key, position))

        view, dropout = crop_group, _ = pairs(stream_position)
        if crop_group_size > 1:
            crop_group, _ = pairs(stream_position - stream_position % crop_group_size)
        return cls(view, crop_group, dropout)


def center_crop(images: jax.Array, size: int) -> jax.Array:
    """Returns the central size x size part of [..., height, width, channels], all if smaller."""
    top, left = (max(length - size, 0) // 2 for length in images.shape[-3:-1])
    return images[..., top : top + size, left : left + size, :]


def augment_one(
    key: jax.Array,
    crop_group_key: jax.Array,
    image: jax.Array,
    mean: jax.Array,
    augmentation: Augmentation,
) -> tuple[jax.Array, jax.Array]:
    """Rotates, crops and mirrors one image at random.

    Args:
      key: typed random key of this example at this presentation.
      crop_group_key: that of the first example of its crop group.
      image: [height, width, channels].
      mean: of the training split, as `subtract_mean` takes it.
      augmentation: what to do. Offsets are uniform over every crop that fits: 33 x 33 for 224 in
        256, as the authors' convdata_jpeg.py has it.

    Returns:
      The crop, [crop_size, crop_size, channels] of the image's type, float32 if it was rotated;
      and what to subtract from it, of that shape or [1, 1, channels].
    """
    crop_key, flip_key = jax.random.split(crop_group_key)
    size = augmentation.crop_size
    margin = np.array(image.shape[:2], np.int32) - size
    offsets = jax.random.randint(crop_key, (2,), 0, margin + 1)
    top, left = offsets if augmentation.random_crop else margin // 2

    def cut(array: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(array, (top, left, 0), (size, size, array.shape[-1]))

    def mirror(crop: jax.Array) -> jax.Array:
        mirrored = jnp.where(jax.random.bernoulli(flip_key), crop[:, ::-1], crop)
        return mirrored if augmentation.random_flip else crop

    if augmentation.rotation_degrees:
        limit = jnp.deg2rad(augmentation.rotation_degrees)
        angle = jax.random.uniform(jax.random.fold_in(key, _ROTATION), minval=-limit, maxval=limit)
        crop = _rotated_crop(image, angle, top, left, size)
    else:
        crop = cut(image)
    # Mirrored with the crop, as in Caffe's data_transformer.cpp, or not at all.
    at_crop = augmentation.mean_at_crop and mean.shape[0] > 1
    return mirror(crop), mirror(cut(mean)) if at_crop else center_crop(mean, size)


def _rotated_crop(
    image: jax.Array, angle: jax.Array, top: int | jax.Array, left: int | jax.Array, size: int
) -> jax.Array:
    """Returns the float32 crop at (top, left) of an image that is first rotated about its center.

    The rotation is counter-clockwise by `angle` radians, bilinear; beyond the edges the outermost
    pixels are repeated. Only the pixels of the crop are computed.
    """
    middle = [(length - 1) / 2 for length in image.shape[:2]]
    below = (top + jnp.arange(size) - middle[0])[:, None]
    right = (left + jnp.arange(size) - middle[1])[None, :]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    coordinates = [cos * below + sin * right + middle[0], cos * right - sin * below + middle[1]]
    channels = jnp.moveaxis(image.astype(jnp.float32), -1, 0)
    rotated = [map_coordinates(one, coordinates, order=1, mode="nearest") for one in channels]
    return jnp.stack(rotated, axis=-1)


def subtract_mean(
    images: jax.Array, statistics: Statistics, augmentation: Augmentation
) -> jax.Array:
    """Returns float pixels of center crops minus the mean, times the scale.

    `statistics["mean"]` is [height, width, channels], or [1, 1, channels] for a mean color.
    """
    mean = center_crop(statistics["mean"], augmentation.crop_size)
    return (images.astype(jnp.float32) - mean) * jnp.asarray(augmentation.scale, jnp.float32)


def training_view(
    keys: ExampleKeys,
    images: jax.Array,
    statistics: Statistics,
    augmentation: Augmentation,
    step: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Augments a batch.

    Args:
      keys: of the examples.
      images: uint8[batch, height, width, channels].
      statistics: the training split's: "mean" as for `subtract_mean`; "pca_components" and
        "pca_std" for color noise.
      augmentation: what to do.
      step: int scalar, steps done.

    Returns:
      The training input, float32[batch, crop, crop, channels], and the mean that was subtracted
      from it, of the same shape or [batch, 1, 1, channels].
    """
    augment = functools.partial(augment_one, mean=statistics["mean"], augmentation=augmentation)
    crops, means = jax.vmap(augment)(keys.view, keys.crop_group, images)
    pixels = crops.astype(jnp.float32) - means
    if augmentation.color is not None:
        color_keys = jax.vmap(lambda key: jax.random.fold_in(key, _COLOR))(keys.view)
        pixels = add_color_noise(pixels, color_keys, statistics, augmentation.color, step)
    return pixels * jnp.asarray(augmentation.scale, jnp.float32), means


def to_images(view: jax.Array, mean: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Returns what `training_view` returned as uint8 images for viewing."""
    pixels = view / jnp.asarray(augmentation.scale, jnp.float32) + mean
    return jnp.clip(jnp.round(pixels), 0, 255).astype(jnp.uint8)
