"""What the device does to a uint8 batch: crop, flip, mean subtraction; pure functions of a key."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How pictures become the net's input.

    Attributes:
      crop_size: height and width of the net's input, in pixels.
      random_crop: whether training crops lie at random places, otherwise in the centre.
      random_flip: whether half of the training pictures are mirrored.
      scale: factor on the pixels after the mean is subtracted.
    """

    crop_size: int
    random_crop: bool
    random_flip: bool
    scale: float


def centre_crop(images: jax.Array, size: int) -> jax.Array:
    """Returns the central size x size part of (..., height, width, channels)."""
    top, left = (images.shape[-3] - size) // 2, (images.shape[-2] - size) // 2
    return images[..., top : top + size, left : left + size, :]


def augment_one(key: jax.Array, image: jax.Array, augmentation: Augmentation) -> jax.Array:
    """Crops and mirrors one picture at random.

    Args:
      key: typed random key of this example at this presentation.
      image: (height, width, channels).
      augmentation: what to do. Offsets are uniform over every crop that fits: 33 x 33 for 224 in
        256, as the authors' convdata_jpeg.py has it.

    Returns:
      (crop_size, crop_size, channels) of the same type.
    """
    crop_key, flip_key = jax.random.split(key)
    size = augmentation.crop_size
    if augmentation.random_crop:
        span = jnp.array([image.shape[0] - size + 1, image.shape[1] - size + 1])
        top, left = jax.random.randint(crop_key, (2,), 0, span)
        image = jax.lax.dynamic_slice(image, (top, left, 0), (size, size, image.shape[-1]))
    else:
        image = centre_crop(image, size)
    if augmentation.random_flip:
        image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
    return image


def subtract_mean(
    images: jax.Array, statistics: Mapping[str, jax.Array], augmentation: Augmentation
) -> jax.Array:
    """Returns float pixels less the mean, times the scale.

    The centre crop of the mean image is subtracted wherever the crop lies (authors'
    convdata_jpeg.py:95,209-211). `statistics["mean"]` is (height, width, channels), or
    (1, 1, channels) for a mean colour.
    """
    mean = statistics["mean"]
    if mean.shape[0] > 1:
        mean = centre_crop(mean, augmentation.crop_size)
    return (images.astype(jnp.float32) - mean) * augmentation.scale


def training_view(
    keys: jax.Array,
    images: jax.Array,
    statistics: Mapping[str, jax.Array],
    augmentation: Augmentation,
) -> jax.Array:
    """Returns (batch, crop, crop, channels) float training input from a uint8 batch.

    Args:
      keys: (batch,) typed random keys, one for each example.
      images: uint8 (batch, height, width, channels).
      statistics: the training split's, see `subtract_mean`.
      augmentation: what to do.
    """
    crops = jax.vmap(lambda key, image: augment_one(key, image, augmentation))(keys, images)
    return subtract_mean(crops, statistics, augmentation)
