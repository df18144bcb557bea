"""Cropping, mirroring and mean subtraction against numpy."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data import augment
from alexnet_jax.data.augment import Augmentation, augment_one, centre_crop

RNG = np.random.default_rng(0)
HEIGHT, WIDTH, CROP = 9, 8, 6  # 4 x 3 places

training_view = jax.jit(augment.training_view, static_argnums=3)


def augmentation(**changes) -> Augmentation:
    fields = {"crop_size": CROP, "random_crop": True, "random_flip": True, "scale": 1.0}
    return Augmentation(**fields | changes)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def find_view(view: np.ndarray, image: np.ndarray) -> tuple[int, int, bool]:
    """Returns (top, left, mirrored) of a crop, searched for through the whole picture."""
    size = view.shape[0]
    found = [
        (top, left, mirrored)
        for top in range(image.shape[0] - size + 1)
        for left in range(image.shape[1] - size + 1)
        for mirrored in (False, True)
        if np.array_equal(
            image[top : top + size, left : left + size][:, :: -1 if mirrored else 1], view
        )
    ]
    assert len(found) == 1, found
    return found[0]


def draw(count: int, **changes) -> collections.Counter[tuple[int, int, bool]]:
    image = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    crop = jax.jit(jax.vmap(lambda key: augment_one(key, image, augmentation(**changes))))
    views = np.asarray(crop(keys(count)))
    assert views.dtype == np.uint8
    return collections.Counter(find_view(view, image) for view in views)


def test_every_crop_and_its_mirror_image_are_as_frequent() -> None:
    count = 2400
    views = draw(count)
    places = set(
        itertools.product(range(HEIGHT - CROP + 1), range(WIDTH - CROP + 1), (False, True))
    )
    assert set(views) == places
    expected = count / len(places)
    chi_squared = sum((seen - expected) ** 2 / expected for seen in views.values())
    assert chi_squared < 49.7  # 99.9 % of chi squared with 23 degrees of freedom


def test_without_flips_no_view_is_mirrored() -> None:
    assert not any(mirrored for _, _, mirrored in draw(200, random_flip=False))


def test_without_random_crops_every_crop_is_central() -> None:
    views = draw(200, random_crop=False)
    assert set(views) == {(1, 1, False), (1, 1, True)}
    assert 70 < views[1, 1, True] < 130  # 100 expected, standard deviation 7.1


def test_a_view_depends_on_its_key_alone() -> None:
    images = RNG.integers(0, 256, (5, HEIGHT, WIDTH, 1), np.uint8)
    statistics = {"mean": jnp.zeros((1, 1, 1))}
    whole = training_view(keys(5), images, statistics, augmentation())
    order = np.array([4, 2, 0, 3, 1])
    shuffled = training_view(keys(5)[order], images[order], statistics, augmentation())
    np.testing.assert_array_equal(shuffled, np.asarray(whole)[order])
    assert not np.array_equal(
        training_view(keys(5, seed=1), images, statistics, augmentation()), whole
    )


@pytest.mark.parametrize(
    ("shape", "top", "left"), [((8, 8), 1, 1), ((9, 12), 1, 3), ((6, 7), 0, 0)]
)
def test_centre_crop(shape: tuple[int, int], top: int, left: int) -> None:
    images = RNG.integers(0, 256, (2, *shape, 3), np.uint8)
    np.testing.assert_array_equal(
        centre_crop(images, CROP), images[:, top : top + CROP, left : left + CROP]
    )


@pytest.mark.parametrize("kind", ["image", "channel"])
def test_the_centre_of_the_mean_is_subtracted_wherever_the_crop_lies(kind: str) -> None:
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    if kind == "channel":
        mean = mean[:1, :1]
    images = RNG.integers(0, 256, (64, HEIGHT, WIDTH, 3), np.uint8)
    views = training_view(keys(64), images, {"mean": mean}, augmentation(scale=0.25))
    assert views.dtype == jnp.float32
    subtracted = mean[1 : 1 + CROP, 1 : 1 + CROP] if kind == "image" else mean
    crops = np.asarray(views, np.float64) / 0.25 + subtracted
    np.testing.assert_allclose(crops, crops.round(), atol=1e-3)
    places = {
        find_view(crop.round().astype(np.uint8), image)
        for crop, image in zip(crops, images, strict=True)
    }
    assert len(places) > 15  # of 24: the same mean went off every one of them


def test_a_crop_as_large_as_the_picture_is_the_picture() -> None:
    images = RNG.integers(0, 256, (3, 7, 7, 1), np.uint8)
    whole = augmentation(crop_size=7, random_flip=False)
    views = training_view(keys(3), images, {"mean": np.zeros((7, 7, 1), np.float32)}, whole)
    np.testing.assert_array_equal(views, images.astype(np.float32))
