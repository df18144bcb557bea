"""Color noise of both conventions against numpy, with the authors' own components."""

import jax
import numpy as np
import pytest

from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.augment import Augmentation, ExampleKeys
from alexnet_jax.preprocessing.color import ColorNoise

# `color_pca` of cuda-convnet2's input_meta, pixels 0..255; the components are columns.
PCA_STD = np.array([19.72083305, 37.09388853, 121.78006099])
COMPONENTS = np.array(
    [
        [0.41795513, -0.71257945, -0.56351045],
        [-0.81698062, -0.02354167, -0.5761844],
        [0.39731118, 0.70119634, -0.59200296],
    ]
)
COUNT, SIDE, CROP = 3000, 5, 3

compiled = jax.jit(augment.training_view, static_argnums=3)


def views(*args) -> jax.Array:
    """Returns the views, without the mean that was subtracted from them."""
    return compiled(*args)[0]


def augmentation(color: ColorNoise | None, scale: float = 1.0) -> Augmentation:
    return Augmentation(CROP, random_crop=True, random_flip=True, scale=scale, color=color)


@pytest.fixture(scope="module")
def arguments() -> tuple:
    """Keys, images and statistics."""
    rng = np.random.default_rng(0)
    keys = jax.random.split(jax.random.key(0), COUNT)
    images = rng.integers(60, 196, (COUNT, SIDE, SIDE, 3), np.uint8)
    mean = rng.uniform(100, 140, (SIDE, SIDE, 3)).astype(np.float32)
    arrays = {"mean": mean, "pca_components": COMPONENTS, "pca_std": PCA_STD}
    return (
        ExampleKeys(keys, keys, keys),
        images,
        {name: array.astype(np.float32) for name, array in arrays.items()},
    )


def shifts_of(view: np.ndarray, plain: np.ndarray, divisor: float) -> np.ndarray:
    """Returns the color that each image was shifted by, float64[count, 3]."""
    shifts = view.astype(np.float64) * divisor - plain
    assert np.ptp(shifts, axis=(1, 2)).max() < 1e-3  # all pixels of an image alike
    return shifts.mean(axis=(1, 2))


@pytest.mark.parametrize(
    ("convention", "std", "spread", "divisor"),
    [
        ("code", 0.1, 0.1 * PCA_STD, 1.1),
        pytest.param("code", 0.3, 0.3 * PCA_STD, 1.3, marks=pytest.mark.slow),
        # Pixels in 0..1 have the eigenvalues (sigma / 255)**2; here the noise is in 0..255.
        ("text", 0.1, 0.1 * (PCA_STD / 255) ** 2 * 255, 1.0),
    ],
)
def test_the_noise_along_each_component(
    convention: str, std: float, spread: np.ndarray, divisor: float, arguments: tuple
) -> None:
    """Normal, of the right spread, independent of the other components and of other images."""
    view = np.asarray(views(*arguments, augmentation(ColorNoise(convention, std, None)), 0))
    plain = np.asarray(views(*arguments, augmentation(None), 0))
    factors = shifts_of(view, plain, divisor) @ COMPONENTS / spread
    tolerance = 4 / np.sqrt(COUNT)
    np.testing.assert_allclose(factors.mean(0), 0, atol=tolerance)
    np.testing.assert_allclose(factors.std(0), 1, atol=tolerance)
    np.testing.assert_allclose((factors**4).mean(0), 3, atol=10 * tolerance)  # normal
    with_next = np.corrcoef(np.hstack([factors[1:], factors[:-1]]), rowvar=False)
    np.testing.assert_allclose(with_next, np.eye(6), atol=tolerance)
    assert len(np.unique(factors.round(3), axis=0)) == COUNT


def test_the_noise_has_the_size_of_the_reference(arguments: tuple) -> None:
    """As coded 1.97, 3.71 and 12.18 gray levels; by the text 0.15, 0.54 and 5.8."""
    plain = np.asarray(views(*arguments, augmentation(None), 0))
    for convention, divisor, levels in (
        ("code", 1.1, (1.97, 3.71, 12.18)),
        ("text", 1.0, (0.15, 0.54, 5.8)),
    ):
        view = np.asarray(views(*arguments, augmentation(ColorNoise(convention, 0.1, None)), 0))
        found = (shifts_of(view, plain, divisor) @ COMPONENTS).std(0)
        np.testing.assert_allclose(found, levels, rtol=0.06)


def test_the_image_is_divided_after_its_mean_is_subtracted(arguments: tuple) -> None:
    """Without noise, images minus their mean are divided by 1.1, then scaled."""
    keys, images, statistics = arguments
    still = statistics | {"pca_std": np.zeros(3, np.float32)}
    noise = ColorNoise("code", 0.1, None)
    view = views(keys, images, still, augmentation(noise, scale=0.5), 0)
    plain = np.asarray(views(*arguments, augmentation(None), 0), np.float64)
    np.testing.assert_allclose(view, plain / 1.1 * 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("convention", ["code", pytest.param("text", marks=pytest.mark.slow)])
def test_the_noise_ends_at_its_step_without_compiling_again(
    convention: str, arguments: tuple
) -> None:
    ending = augmentation(ColorNoise(convention, 0.1, until=10))
    lasting = augmentation(ColorNoise(convention, 0.1, until=None))
    before = compiled._cache_size()
    found = [np.asarray(views(*arguments, ending, step)) for step in (0, 9, 10, 99)]
    assert compiled._cache_size() == before + 1
    for view in found[:2]:
        expected = views(*arguments, lasting, 0)
        np.testing.assert_allclose(view, expected, rtol=1e-6, atol=2e-5)
    for view in found[2:]:
        np.testing.assert_array_equal(view, views(*arguments, augmentation(None), 0))


def test_images_to_look_at_show_the_noise(arguments: tuple) -> None:
    chosen = augmentation(ColorNoise("code", 0.1, None), scale=0.5)
    mean = arguments[2]["mean"][1:-1, 1:-1].astype(np.float64)
    expected = np.asarray(views(*arguments, chosen, 0), np.float64) / 0.5 + mean
    found = np.asarray(augment.to_images(*compiled(*arguments, chosen, 0), chosen))
    np.testing.assert_allclose(found, expected.clip(0, 255), atol=0.51)


def test_gray_images_become_lighter_or_darker(arguments: tuple) -> None:
    keys, images, _ = arguments
    zeros, ones = np.zeros((1, 1, 1), np.float32), np.ones((1, 1), np.float32)
    statistics = {"mean": zeros, "pca_components": ones, "pca_std": np.float32([40])}
    gray = (keys, images[..., :1], statistics)
    ending = augmentation(ColorNoise("code", 0.1, until=1))
    view, plain = (np.asarray(views(*gray, ending, step)) for step in (0, 1))
    shifts = shifts_of(view, plain, 1.1)
    assert shifts.std() == pytest.approx(4, rel=0.06)
