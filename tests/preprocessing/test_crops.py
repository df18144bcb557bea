"""Test-time views against numpy slices and Pillow's resizing."""

from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.preprocessing import crops
from alexnet_jax.preprocessing.augment import Augmentation

RNG = np.random.default_rng(0)
HEIGHT, WIDTH, CROP = 9, 8, 6

MEANS = {
    "image": RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32),
    "channel": RNG.uniform(0, 255, (1, 1, 3)).astype(np.float32),
}


def augmentation(**changes: Any) -> Augmentation:
    fields = {"crop_size": CROP, "random_crop": True, "random_flip": True, "scale": 1.0}
    return Augmentation(**fields | changes)


def images_of(count: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), np.uint8)


def subtracted(kind: str) -> np.ndarray:
    """The center crop of the mean image, or the color."""
    return MEANS[kind][1 : 1 + CROP, 1 : 1 + CROP] if kind == "image" else MEANS[kind]


def test_the_papers_ten_crops() -> None:
    """Corners, center and mirror images in the order of the authors' code."""
    offsets = crops.ten_crops(256, 256, 224)
    five = [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)]
    expected = [(*offset, mirrored) for mirrored in (False, True) for offset in five]
    assert list(zip(*(part.tolist() for part in offsets), strict=True)) == expected


def test_ten_crops_of_an_oblong_image() -> None:
    offsets = crops.ten_crops(HEIGHT, WIDTH, CROP)
    assert offsets.top.tolist() == [0, 0, 1, 3, 3] * 2
    assert offsets.left.tolist() == [0, 2, 1, 0, 2] * 2


@pytest.mark.parametrize("kind", MEANS)
@pytest.mark.parametrize("scale", [1.0, 1 / 58])
def test_center_view(scale: float, kind: str) -> None:
    images = images_of(4)
    found = crops.center_view(images, {"mean": MEANS[kind]}, augmentation(scale=scale))
    cut = images[:, 1 : 1 + CROP, 1 : 1 + CROP].astype(np.float64)
    np.testing.assert_allclose(found, (cut - subtracted(kind)) * scale, atol=1e-4 * scale)


@pytest.mark.parametrize("kind", MEANS)
def test_crop_views(kind: str) -> None:
    """The center crop of the mean is subtracted from each, mirrored or not, as in training."""
    images = images_of(4)
    view = jax.jit(crops.crop_view, static_argnums=2)
    offsets = crops.ten_crops(HEIGHT, WIDTH, CROP)
    for top, left, mirrored in zip(*offsets, strict=True):
        found = view(
            images, {"mean": MEANS[kind]}, augmentation(), crops.Crops(top, left, mirrored)
        )
        part = images[:, top : top + CROP, left : left + CROP].astype(np.float64)
        part = part[:, :, ::-1] if mirrored else part
        np.testing.assert_allclose(found, part - subtracted(kind), atol=1e-4)


@pytest.mark.parametrize("kind", ["image", "channel"])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("size", [6, 9, 14])
def test_whole_views(size: int, mirrored: bool, kind: str) -> None:
    """Pillow's bilinear filter is antialiased too."""
    images = images_of(2, HEIGHT, HEIGHT)
    mean = MEANS["channel"] if kind == "channel" else RNG.uniform(0, 255, (HEIGHT, HEIGHT, 3))
    mean = mean.astype(np.float32)
    found = crops.whole_view(images, {"mean": mean}, augmentation(scale=0.25), size, mirrored)
    assert found.shape == (2, size, size, 3)
    for one, image in zip(np.asarray(found), images, strict=True):
        image = image[:, ::-1] if mirrored else image
        pixels = (image.astype(np.float32) - mean) * 0.25
        for channel in range(3):
            plane = Image.fromarray(pixels[..., channel])
            resized = plane.resize((size, size), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(one[..., channel], np.asarray(resized), atol=1e-3)


@pytest.mark.parametrize("kind", MEANS)
def test_whole_views_of_other_sizes(kind: str) -> None:
    """Without a size the pixels stay as they are; a mean image is resized to that of the images."""
    same = images_of(2)
    found = crops.whole_view(same, {"mean": MEANS[kind]}, augmentation(scale=0.5))
    np.testing.assert_allclose(found, (same.astype(np.float64) - MEANS[kind]) * 0.5, atol=1e-4)
    larger = images_of(2, 2 * HEIGHT, 2 * WIDTH)
    found = crops.whole_view(larger, {"mean": MEANS[kind]}, augmentation())
    subtracted = larger - np.asarray(found, np.float64)
    if kind == "channel":
        np.testing.assert_allclose(
            subtracted, np.broadcast_to(MEANS[kind], larger.shape), atol=1e-3
        )
    else:
        plane = Image.fromarray(MEANS[kind][..., 0])
        resized = plane.resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(subtracted[0, ..., 0], np.asarray(resized), atol=1e-2)
