"""Images as Python code has them: paths, Pillow's images or arrays, one or many."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from alexnet_jax.data import images, listing
from alexnet_jax.data.image_files import list_image_files
from alexnet_jax.errors import InputError

_CHANNELS = (1, 3, 4)  # of arrays: gray, RGB, RGB with an alpha that is dropped


def split_images(given: Any) -> list[Any]:
    """Returns the single images of what a caller gives, for `to_pixels`.

    Args:
      given: a path as in `list_image_files`, so that a folder or glob is all its images; an image
        of Pillow; an array of one image, [height, width] or [height, width, channels], or of a
        batch, [batch, height, width, channels]; or an iterable of any of these.

    Raises:
      InputError: it is something else, or a path names no images.
    """
    if isinstance(given, (str, os.PathLike)):
        return list(list_image_files([os.fspath(given)]))
    if isinstance(given, Image.Image):
        return [given]
    if hasattr(given, "__array__"):
        array = np.asarray(given)
        return list(array) if array.ndim == 4 else [array]
    if isinstance(given, Iterable) and not isinstance(given, bytes):
        return [image for one in given for image in split_images(one)]
    raise InputError(
        f"Images are paths, images of Pillow, or arrays, one or many, not {type(given).__name__}."
    )


def to_pixels(image: Any, channels: int) -> np.ndarray:
    """Returns uint8[height, width, channels] of a path, an image of Pillow, or a uint8 array.

    Raises:
      InputError: it cannot be read, or is an array of another type or shape.
    """
    try:
        if isinstance(image, Path):
            return images.decode(listing.read_file(image), channels, images.every_format())
        if isinstance(image, Image.Image):
            return images.to_array(image.copy(), channels)
    except Exception as error:  # damaged data make Pillow raise almost any exception
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise InputError(f"The image {image} cannot be read: {reason}.") from error
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (*image.shape, 1)[2] not in _CHANNELS:
        raise InputError(
            "Arrays of images are uint8[height, width, channels], gray or RGB values in 0..255, or "
            f"batches of these, not {image.dtype}{list(image.shape)}."
        )
    if not image.size:
        raise InputError(f"An image of shape {list(image.shape)} has no pixels.")
    if image.shape[2:] == (channels,):
        return np.asarray(image)
    gray = image.shape[2:] == (1,)
    return images.to_array(Image.fromarray(image[..., 0] if gray else image), channels)
