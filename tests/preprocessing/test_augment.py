"""Turning, cropping, mirroring and mean subtraction against numpy."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.augment import Augmentation, augment_one, center_crop
from alexnet_jax.preprocessing.crops import center_view

RNG = np.random.default_rng(0)
HEIGHT, WIDTH, CROP = 9, 8, 6  # 4 x 3 places

training_view = jax.jit(augment.training_view, static_argnums=4)
training_pictures = jax.jit(augment.training_pictures, static_argnums=4)


def augmentation(**changes) -> Augmentation:
    fields = {"crop_size": CROP, "random_crop": True, "random_flip": True, "scale": 1.0}
    return Augmentation(**fields | changes)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def view_of(images: np.ndarray, mean: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    """Returns the training views, each picture by a key of its own."""
    own = keys(len(images), seed)
    views = training_view(own, own, images, {"mean": mean}, augmentation(**changes), 0)
    assert views.dtype == jnp.float32
    return np.asarray(views)


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
    mean = jnp.zeros((1, 1, 3))
    one = lambda key: augment_one(key, key, image, mean, augmentation(**changes))[0]  # noqa: E731
    views = np.asarray(jax.jit(jax.vmap(one))(keys(count)))
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


def test_all_33_offsets_of_either_axis_are_as_frequent() -> None:
    """A crop of 224 in 256, by a picture whose pixels are their own coordinates."""
    rows, columns = np.mgrid[:256, :256].astype(np.uint8)
    image, paper = np.stack([rows, columns], -1), augmentation(crop_size=224)

    def corners(key: jax.Array) -> jax.Array:
        crop, _ = augment_one(key, key, image, jnp.zeros((1, 1, 2)), paper)
        return crop[0, :: crop.shape[1] - 1]

    count = 3300
    found = np.asarray(jax.jit(lambda keys: jax.lax.map(corners, keys))(keys(count))).astype(int)
    assert (abs(found[:, 0, 1] - found[:, 1, 1]) == 223).all()
    for offsets in (found[:, 0, 0], found[:, :, 1].min(axis=1)):
        seen = np.bincount(offsets, minlength=33)
        assert len(seen) == 33
        assert ((seen - count / 33) ** 2 / (count / 33)).sum() < 62.5  # 99.9 %, 32 degrees


def test_a_view_depends_on_its_keys_alone() -> None:
    images = RNG.integers(0, 256, (5, HEIGHT, WIDTH, 1), np.uint8)
    statistics, order = {"mean": jnp.zeros((1, 1, 1))}, np.array([4, 2, 0, 3, 1])
    all_on = augmentation(rotation_degrees=20.0)
    own, runs = keys(5), keys(5, seed=9)
    whole = training_view(own, runs, images, statistics, all_on, 0)
    args = (images[order], statistics, all_on, 0)
    np.testing.assert_array_equal(
        training_view(own[order], runs[order], *args), np.asarray(whole)[order]
    )
    for others in ((keys(5, seed=1), runs), (own, keys(5, seed=1))):
        assert not np.array_equal(training_view(*others, images, statistics, all_on, 0), whole)


def test_of_the_keys_of_a_run_come_crop_and_flip() -> None:
    """Examples with one run key lie at one place, however their own keys differ."""
    image = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    runs = jnp.repeat(keys(50), 4)
    views = training_view(
        keys(200, seed=1),
        runs,
        np.stack([image] * 200),
        {"mean": np.zeros((1, 1, 3))},
        augmentation(),
        0,
    )
    places = [find_view(np.asarray(view).astype(np.uint8), image) for view in views]
    assert [places[4 * run : 4 * run + 4] for run in range(50)] == [
        4 * [places[4 * run]] for run in range(50)
    ]
    assert len(set(places)) > 15  # of 24


@pytest.mark.parametrize(
    ("shape", "top", "left"), [((8, 8), 1, 1), ((9, 12), 1, 3), ((6, 7), 0, 0)]
)
def test_center_crop(shape: tuple[int, int], top: int, left: int) -> None:
    images = RNG.integers(0, 256, (2, *shape, 3), np.uint8)
    np.testing.assert_array_equal(
        center_crop(images, CROP), images[:, top : top + CROP, left : left + CROP]
    )


@pytest.mark.parametrize("kind", ["image", "channel"])
def test_the_center_of_the_mean_is_subtracted_wherever_the_crop_lies(kind: str) -> None:
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    if kind == "channel":
        mean = mean[:1, :1]
    images = RNG.integers(0, 256, (64, HEIGHT, WIDTH, 3), np.uint8)
    views = view_of(images, mean, scale=0.25)
    subtracted = mean[1 : 1 + CROP, 1 : 1 + CROP] if kind == "image" else mean
    crops = views.astype(np.float64) / 0.25 + subtracted
    np.testing.assert_allclose(crops, crops.round(), atol=1e-3)
    places = {
        find_view(crop.round().astype(np.uint8), image)
        for crop, image in zip(crops, images, strict=True)
    }
    assert len(places) > 15  # of 24: the same mean went off every one of them


def test_the_mean_is_subtracted_where_the_crop_lies_and_mirrored_with_it() -> None:
    """Caffe's data_transformer.cpp: what is cropped and mirrored is the whole difference."""
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    images = RNG.integers(0, 256, (64, HEIGHT, WIDTH, 3), np.uint8)
    views = view_of(images, mean, mean_at_crop=True)
    places = {
        find_view(view, image.astype(np.float32) - mean)
        for view, image in zip(views, images, strict=True)
    }
    assert len(places) > 15
    color = mean[:1, :1]
    np.testing.assert_array_equal(view_of(images, color, mean_at_crop=True), view_of(images, color))


def test_scale_and_shift_by_channel_are_torchvisions() -> None:
    """ToTensor and Normalize of torchvision, on crops that are looked up."""
    given, stds = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = RNG.integers(0, 256, (16, HEIGHT, WIDTH, 3), np.uint8)
    mean = (255 * given).astype(np.float32).reshape(1, 1, 3)
    changes = {"scale": tuple((1 / (255 * stds)).tolist())}
    crops = view_of(images, np.zeros((1, 1, 3), np.float32))
    expected = (crops.astype(np.float64) / 255 - given) / stds
    np.testing.assert_allclose(view_of(images, mean, **changes), expected, rtol=1e-5, atol=1e-5)
    center = center_view(images, {"mean": mean}, augmentation(**changes))
    expected = (images[:, 1 : 1 + CROP, 1 : 1 + CROP] / 255.0 - given) / stds
    np.testing.assert_allclose(center, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"mean_at_crop": True}, {"scale": 0.01}])
def test_pictures_to_look_at_are_the_crops(changes: dict) -> None:
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    images = RNG.integers(0, 256, (32, HEIGHT, WIDTH, 3), np.uint8)
    own = keys(32)
    found = training_pictures(own, own, images, {"mean": mean}, augmentation(**changes), 0)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, view_of(images, np.zeros((1, 1, 3), np.float32)))


def test_a_crop_as_large_as_the_picture_is_the_picture() -> None:
    images = RNG.integers(0, 256, (3, 7, 7, 1), np.uint8)
    views = view_of(images, np.zeros((7, 7, 1), np.float32), crop_size=7, random_flip=False)
    np.testing.assert_array_equal(views, images.astype(np.float32))


SIDE = 32  # of pictures that are turned


def turned(images: np.ndarray, **changes) -> np.ndarray:
    """Returns views of (height, width, 2) pictures, all by the same keys."""
    return view_of(images, np.zeros((1, 1, 2), np.float32), **changes).astype(np.float64)


def coordinates(count: int, **changes) -> np.ndarray:
    """Returns where each pixel of each view was taken from: views of pictures of coordinates."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    return turned(np.stack([np.stack([rows, columns], -1)] * count), **changes)


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """Returns the picture between its pixels, the outermost going on for ever."""
    above, left = math.floor(row), math.floor(column)
    total = np.zeros(image.shape[-1])
    for y, x in itertools.product((above, above + 1), (left, left + 1)):
        inside = min(max(y, 0), SIDE - 1), min(max(x, 0), SIDE - 1)
        total += (1 - abs(row - y)) * (1 - abs(column - x)) * image[inside]
    return total


def test_turned_pictures_are_bilinear_with_their_edges_going_on() -> None:
    """The turn of each view is read off its middle, then every pixel of it is computed anew."""
    count, size = 6, 30
    changes = {"crop_size": size, "random_flip": False, "rotation_degrees": 40.0}
    where = coordinates(count, **changes)
    images = RNG.integers(0, 256, (count, SIDE, SIDE, 2), np.uint8)
    views = turned(images, **changes)
    middle = (SIDE - 1) / 2
    for view, places, image in zip(views, where, images, strict=True):
        along = places[15, 20] - places[15, 10]  # ten pixels to the right, from inside the picture
        cos, sin = along[1] / 10, -along[0] / 10
        assert cos**2 + sin**2 == pytest.approx(1, abs=1e-5)
        back = np.linalg.solve([[cos, -sin], [sin, cos]], places[15, 15] - middle)
        top, left = back[0] + middle - 15, back[1] + middle - 15
        assert (top, left) == pytest.approx((round(top), round(left)), abs=1e-3)
        assert 0 <= round(top) <= SIDE - size
        for row, column in itertools.product(range(size), repeat=2):
            y, x = round(top) + row - middle, round(left) + column - middle
            expected = bilinear(image, cos * y - sin * x + middle, sin * y + cos * x + middle)
            np.testing.assert_allclose(view[row, column], expected, atol=0.05)


def test_turns_are_uniform_within_the_limit_and_mirrored_after() -> None:
    limit = 15.0
    central = {"crop_size": 8, "random_crop": False, "rotation_degrees": limit}  # far from edges
    where = coordinates(600, random_flip=False, **central)
    along = where[:, 4, 6] - where[:, 4, 2]
    angles = np.rad2deg(np.arctan2(-along[:, 0], along[:, 1]))
    assert abs(angles).max() <= limit + 0.01
    seen = np.histogram(angles, bins=6, range=(-limit, limit))[0]
    assert ((seen - 100) ** 2 / 100).sum() < 20.5  # 99.9 % of chi squared, 5 degrees
    mirrored = coordinates(600, **central)
    flipped = mirrored[:, 4, 6, 1] < mirrored[:, 4, 2, 1]
    assert 240 < flipped.sum() < 360
    mirrored[flipped] = mirrored[flipped][:, :, ::-1]
    np.testing.assert_array_equal(mirrored, where)


def test_what_is_off_is_not_compiled() -> None:
    own, images = keys(2), np.zeros((2, HEIGHT, WIDTH, 1), np.uint8)
    statistics = {"mean": np.zeros((1, 1, 1), np.float32)}

    def operations(**changes) -> str:
        lowered = training_view.lower(own, own, images, statistics, augmentation(**changes), 0)
        return lowered.as_text()

    assert "cosine" not in operations()
    assert "cosine" in operations(rotation_degrees=1.0)
