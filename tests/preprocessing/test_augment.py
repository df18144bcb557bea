"""Rotation, crops, mirror images and mean subtraction against numpy."""

import collections
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.augment import Augmentation, ExampleKeys, augment_one, center_crop
from alexnet_jax.preprocessing.crops import center_view

RNG = np.random.default_rng(0)
HEIGHT, WIDTH, CROP = 9, 8, 6  # 4 x 3 offsets
COUNT = 64  # images of most tests, which share their compiled programs

compiled = jax.jit(augment.training_view, static_argnums=3)
to_images = jax.jit(augment.to_images, static_argnums=2)


def training_view(*args) -> jax.Array:
    """Returns the view, without the mean that was subtracted from it."""
    return compiled(*args)[0]


def augmentation(**changes) -> Augmentation:
    fields = {"crop_size": CROP, "random_crop": True, "random_flip": True, "scale": 1.0}
    return Augmentation(**fields | changes)


def keys(count: int, seed: int = 0) -> jax.Array:
    return jax.random.split(jax.random.key(seed), count)


def example_keys(view: jax.Array, crop_group: jax.Array | None = None) -> ExampleKeys:
    return ExampleKeys(view, view if crop_group is None else crop_group, view)


def view_of(images: np.ndarray, mean: np.ndarray, seed: int = 0, **changes) -> np.ndarray:
    """Returns the training views, each image with its own key."""
    own = example_keys(keys(len(images), seed))
    views = training_view(own, images, {"mean": mean}, augmentation(**changes), 0)
    assert views.dtype == jnp.float32
    return np.asarray(views)


def find_view(view: np.ndarray, image: np.ndarray) -> tuple[int, int, bool]:
    """Returns (top, left, mirrored) of a crop, searched for in the whole image."""
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


def test_every_crop_and_its_mirror_image_are_equally_frequent() -> None:
    count = 2400
    views = draw(count)
    offsets = set(
        itertools.product(range(HEIGHT - CROP + 1), range(WIDTH - CROP + 1), (False, True))
    )
    assert set(views) == offsets
    expected = count / len(offsets)
    chi_squared = sum((seen - expected) ** 2 / expected for seen in views.values())
    assert chi_squared < 49.7  # 99.9 % of chi squared with 23 degrees of freedom


def test_without_flips_no_view_is_mirrored() -> None:
    assert not any(mirrored for _, _, mirrored in draw(200, random_flip=False))


def test_without_random_crops_every_crop_is_central() -> None:
    views = draw(200, random_crop=False)
    assert set(views) == {(1, 1, False), (1, 1, True)}
    assert 70 < views[1, 1, True] < 130  # 100 expected, standard deviation 7.1


def test_all_33_offsets_of_either_axis_are_equally_frequent() -> None:
    """A crop of 224 in 256, with an image whose pixels are their own coordinates."""
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


@pytest.mark.parametrize("group", [1, 2, 8])
def test_a_crop_group_has_the_key_of_its_first_example(group: int) -> None:
    """Whatever part of the batch a device or host holds; no key is used twice."""
    key, positions = jax.random.key(5), np.arange(16, 48, dtype=np.uint32)

    def keys_at(part: slice) -> dict[str, np.ndarray]:
        found = ExampleKeys.at(key, positions[part], group)._asdict()
        return {name: np.asarray(jax.random.key_data(keys)) for name, keys in found.items()}

    whole = keys_at(slice(None))
    first = (np.arange(32) // group) * group
    np.testing.assert_array_equal(whole["crop_group"], whole["view"][first])
    part = slice(3, 22)
    for name, found in keys_at(part).items():
        np.testing.assert_array_equal(found, whole[name][part])
    rows = np.concatenate([whole["view"], whole["dropout"]]).tolist()
    assert len({tuple(row) for row in rows}) == 64


def test_a_view_depends_only_on_its_keys() -> None:
    images = RNG.integers(0, 256, (5, HEIGHT, WIDTH, 1), np.uint8)
    statistics, order = {"mean": jnp.zeros((1, 1, 1))}, np.array([4, 2, 0, 3, 1])
    all_on = augmentation(rotation_degrees=20.0)
    own, groups = keys(5), keys(5, seed=9)
    whole = training_view(example_keys(own, groups), images, statistics, all_on, 0)
    reordered = example_keys(own[order], groups[order])
    found = training_view(reordered, images[order], statistics, all_on, 0)
    np.testing.assert_array_equal(found, np.asarray(whole)[order])
    for others in ((keys(5, seed=1), groups), (own, keys(5, seed=1))):
        found = training_view(example_keys(*others), images, statistics, all_on, 0)
        assert not np.array_equal(found, whole)


def test_a_crop_group_shares_crop_and_flip() -> None:
    """However the keys of its examples differ."""
    image = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    groups = example_keys(keys(COUNT, seed=1), keys(COUNT)[np.arange(COUNT) // 2])
    statistics = {"mean": np.zeros((1, 1, 3))}
    views = training_view(groups, np.stack([image] * COUNT), statistics, augmentation(), 0)
    crops = [find_view(view.astype(np.uint8), image) for view in np.asarray(views)]
    assert crops[::2] == crops[1::2]
    assert len(set(crops)) > 12  # of 24


@pytest.mark.parametrize(
    ("shape", "top", "left"), [((8, 8), 1, 1), ((9, 12), 1, 3), ((6, 7), 0, 0)]
)
def test_center_crop(shape: tuple[int, int], top: int, left: int) -> None:
    images = RNG.integers(0, 256, (2, *shape, 3), np.uint8)
    np.testing.assert_array_equal(
        center_crop(images, CROP), images[:, top : top + CROP, left : left + CROP]
    )


@pytest.mark.parametrize("kind", ["image", "channel"])
def test_the_center_of_the_mean_is_subtracted_from_every_crop(kind: str) -> None:
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    if kind == "channel":
        mean = mean[:1, :1]
    images = RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    views = view_of(images, mean, scale=0.25)
    subtracted = mean[1 : 1 + CROP, 1 : 1 + CROP] if kind == "image" else mean
    crops = views.astype(np.float64) / 0.25 + subtracted
    np.testing.assert_allclose(crops, crops.round(), atol=1e-3)
    offsets = {
        find_view(crop.round().astype(np.uint8), image)
        for crop, image in zip(crops, images, strict=True)
    }
    assert len(offsets) > 15  # of 24, and the same mean was subtracted from all


def test_the_mean_may_be_cropped_and_mirrored_with_the_image() -> None:
    """Caffe's data_transformer.cpp crops and mirrors the difference."""
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    images = RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    views = view_of(images, mean, mean_at_crop=True)
    offsets = {
        find_view(view, image.astype(np.float32) - mean)
        for view, image in zip(views, images, strict=True)
    }
    assert len(offsets) > 15
    color = mean[:1, :1]
    np.testing.assert_array_equal(view_of(images, color, mean_at_crop=True), view_of(images, color))


def test_scale_and_mean_per_channel_are_torchvisions() -> None:
    """ToTensor and Normalize of torchvision, on crops that are looked up."""
    given, stds = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    mean = (255 * given).astype(np.float32).reshape(1, 1, 3)
    changes = {"scale": tuple((1 / (255 * stds)).tolist())}
    crops = view_of(images, np.zeros((1, 1, 3), np.float32))
    expected = (crops.astype(np.float64) / 255 - given) / stds
    np.testing.assert_allclose(view_of(images, mean, **changes), expected, rtol=1e-5, atol=1e-5)
    center = jax.jit(center_view, static_argnums=2)(images, {"mean": mean}, augmentation(**changes))
    expected = (images[:, 1 : 1 + CROP, 1 : 1 + CROP] / 255.0 - given) / stds
    np.testing.assert_allclose(center, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"mean_at_crop": True}, {"scale": 0.25}])
def test_images_to_look_at_are_the_crops(changes: dict) -> None:
    mean = RNG.uniform(0, 255, (HEIGHT, WIDTH, 3)).astype(np.float32)
    images = RNG.integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    own = example_keys(keys(COUNT))
    chosen = augmentation(**changes)
    found = to_images(*compiled(own, images, {"mean": mean}, chosen, 0), chosen)
    assert found.dtype == jnp.uint8
    np.testing.assert_array_equal(found, view_of(images, np.zeros((1, 1, 3), np.float32)))


def test_a_crop_as_large_as_the_image_is_the_image() -> None:
    images = RNG.integers(0, 256, (3, 7, 7, 1), np.uint8)
    views = view_of(images, np.zeros((7, 7, 1), np.float32), crop_size=7, random_flip=False)
    np.testing.assert_array_equal(views, images.astype(np.float32))


SIDE = 32  # of images that are rotated


def rotated(images: np.ndarray, **changes) -> np.ndarray:
    """Returns views of [height, width, 2] images, all with the same keys."""
    return view_of(images, np.zeros((1, 1, 2), np.float32), **changes).astype(np.float64)


def coordinates(count: int, **changes) -> np.ndarray:
    """Returns where each pixel of each view was taken from: views of images of coordinates."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.uint8)
    return rotated(np.stack([np.stack([rows, columns], -1)] * count), **changes)


def bilinear(image: np.ndarray, row: float, column: float) -> np.ndarray:
    """Returns the image between its pixels, the outermost being repeated."""
    above, left = math.floor(row), math.floor(column)
    total = np.zeros(image.shape[-1])
    for y, x in itertools.product((above, above + 1), (left, left + 1)):
        inside = min(max(y, 0), SIDE - 1), min(max(x, 0), SIDE - 1)
        total += (1 - abs(row - y)) * (1 - abs(column - x)) * image[inside]
    return total


def test_rotated_images_are_bilinear_with_their_edges_repeated() -> None:
    """The angle of each view is read off its middle, then every pixel of it is computed again."""
    count, size = 3, 30
    changes = {"crop_size": size, "random_flip": False, "rotation_degrees": 40.0}
    where = coordinates(count, **changes)
    images = RNG.integers(0, 256, (count, SIDE, SIDE, 2), np.uint8)
    views = rotated(images, **changes)
    middle = (SIDE - 1) / 2
    for view, sources, image in zip(views, where, images, strict=True):
        along = sources[15, 20] - sources[15, 10]  # ten pixels to the right, inside the image
        cos, sin = along[1] / 10, -along[0] / 10
        assert cos**2 + sin**2 == pytest.approx(1, abs=1e-5)
        back = np.linalg.solve([[cos, -sin], [sin, cos]], sources[15, 15] - middle)
        top, left = back[0] + middle - 15, back[1] + middle - 15
        assert (top, left) == pytest.approx((round(top), round(left)), abs=1e-3)
        assert 0 <= round(top) <= SIDE - size
        for row, column in itertools.product(range(size), repeat=2):
            y, x = round(top) + row - middle, round(left) + column - middle
            expected = bilinear(image, cos * y - sin * x + middle, sin * y + cos * x + middle)
            np.testing.assert_allclose(view[row, column], expected, atol=0.05)


def test_rotations_are_uniform_within_the_limit_and_mirrored_after() -> None:
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
    own, images = example_keys(keys(2)), np.zeros((2, HEIGHT, WIDTH, 1), np.uint8)
    statistics = {"mean": np.zeros((1, 1, 1), np.float32)}

    def operations(**changes) -> str:
        lowered = compiled.lower(own, images, statistics, augmentation(**changes), 0)
        return lowered.as_text()

    assert "cosine" not in operations()
    assert "cosine" in operations(rotation_degrees=1.0)
