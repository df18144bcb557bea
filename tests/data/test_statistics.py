"""The mean and the colors of a training split, against float64 numpy over all pixels at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data.source import ArraySource
from alexnet_jax.data.statistics import (
    RunningStatistics,
    Statistics,
    StatisticsOptions,
    statistics_of,
)
from alexnet_jax.errors import InputError

COUNT = 301  # more than two of the chunks it is read in, and not a multiple

MakeSource = Callable[..., ArraySource]
MeanOf = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    ramp = np.linspace(0, 200, COUNT).astype(np.uint8)  # the part taken matters
    noise = np.random.default_rng(0).integers(0, 56, (COUNT, 5, 5, 3), np.uint8)
    return ramp[:, None, None, None] + noise


@pytest.fixture
def mean_of(array_source: MakeSource) -> MeanOf:
    """Returns (images, mean, broken indices, options) -> the mean that is subtracted."""

    def compute(
        images: np.ndarray, mean: str, *broken: int, threads: int = 1, **options
    ) -> np.ndarray:
        source = array_source(images, broken=broken)
        return statistics_of(source, StatisticsOptions(mean, **options), threads)["mean"]

    return compute


@pytest.mark.parametrize("threads", [1, 3])
def test_mean_image(mean_of: MeanOf, images: np.ndarray, threads: int) -> None:
    mean = mean_of(images, "image", threads=threads)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, images.mean(0, dtype=np.float64).astype(np.float32))
    # It is cropped in another way, but the same.
    np.testing.assert_array_equal(mean, mean_of(images, "image_at_crop"))


def test_mean_color(mean_of: MeanOf, images: np.ndarray) -> None:
    mean = mean_of(images, "channel", threads=2)
    assert mean.shape == (1, 1, 3)
    np.testing.assert_allclose(mean[0, 0], images.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_what_needs_no_images_reads_none(mean_of: MeanOf) -> None:
    unreadable = np.zeros((3, 4, 4, 3), np.uint8), 0, 1, 2
    mean = mean_of(unreadable[0], "none", *unreadable[1:])
    np.testing.assert_array_equal(mean, np.zeros((1, 1, 3)))
    color = (123.675, 116.28, 103.53)
    mean = mean_of(unreadable[0], "given", *unreadable[1:], channel_mean=color)
    np.testing.assert_array_equal(mean, np.float32([[color]]))


@pytest.mark.parametrize("mean", ["image", "channel", "given", "none"])
def test_colors_against_the_covariance_of_all_pixels(array_source: MakeSource, mean: str) -> None:
    """Of readable images; the mean is the same as without colors."""
    rng = np.random.default_rng(1)
    mixed = rng.normal(0, [6, 20, 50], (200, 5, 4, 3)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    images = (mixed + 120).clip(0, 255).astype(np.uint8)
    images[7], readable = 255, np.delete(np.arange(200), 7)
    square = np.concatenate([images, images[:, :, :1]], axis=2)  # 5 x 5
    source = array_source(square, broken=(7,))
    options = StatisticsOptions(mean, channel_mean=(1.0, 2.0, 3.0), colors=True)
    found = statistics_of(source, options, threads=2)
    assert {name: array.shape for name, array in found.items()} == options.shapes((5, 5, 3))
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    pixels = square[readable].reshape(-1, 3).astype(np.float64)
    components, pca_std = (found[name].astype(np.float64) for name in ("pca_components", "pca_std"))
    covariance = np.cov(pixels, rowvar=False, bias=True)
    np.testing.assert_allclose(
        components * pca_std**2 @ components.T, covariance, rtol=1e-5, atol=1e-3
    )
    np.testing.assert_allclose(components.T @ components, np.eye(3), atol=1e-6)
    plain = statistics_of(source, StatisticsOptions(mean, channel_mean=(1.0, 2.0, 3.0)))
    assert plain.keys() == {"mean"}
    np.testing.assert_allclose(found["mean"], plain["mean"], rtol=1e-6)


def test_white_images_do_not_overflow(mean_of: MeanOf) -> None:
    white = np.full((1000, 2, 2, 1), 255, np.uint8)
    np.testing.assert_array_equal(mean_of(white, "image", threads=2), np.full((2, 2, 1), 255))


def test_some_examples_are_spread_over_the_split(mean_of: MeanOf, images: np.ndarray) -> None:
    mean = mean_of(images, "image", num_examples=4)
    expected = images[[0, 100, 200, 300]].mean(0, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    more_than_there_are = mean_of(images, "image", num_examples=10**6)
    np.testing.assert_array_equal(more_than_there_are, mean_of(images, "image"))


def test_unreadable_images_are_left_out(mean_of: MeanOf, images: np.ndarray) -> None:
    broken = (0, 7, 130, 300)
    mean = mean_of(images, "image", *broken, threads=2)
    expected = np.delete(images, broken, axis=0).mean(0, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    with pytest.raises(InputError, match="training split"):
        mean_of(images[:3], "image", 0, 1, 2)


def test_progress_reaches_the_end(array_source: MakeSource, images: np.ndarray) -> None:
    calls: list[tuple[int, int]] = []
    statistics_of(
        array_source(images), StatisticsOptions("channel"), 2, lambda *call: calls.append(call)
    )
    assert calls == [(128, COUNT), (256, COUNT), (COUNT, COUNT)]


def colorful(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    color = rng.normal(0, [5, 20, 60], (*shape[:3], 3)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (color + np.array([120, 110, 100])).clip(0, 255).astype(np.uint8)[..., : shape[3]]


@pytest.mark.parametrize("shape", [(7, 6, 5, 3), (4, 5, 300, 3), (5, 4, 6, 1)])
def test_running_statistics(shape: tuple[int, ...], tmp_path: Path) -> None:
    images = colorful(*shape)
    first, second = RunningStatistics.zero(shape[1:]), RunningStatistics.zero(shape[1:])
    for image in images[:3]:
        first.add(image)
    for image in images[3:]:
        second.add(image)
    second.merge(first)
    path = tmp_path / "statistics.npz"
    second.statistics(np.array([3, 4])).save(path)
    found = Statistics.load(path)

    pixels = images.reshape(-1, shape[-1]).astype(np.float64)
    covariance = np.cov(pixels, rowvar=False, bias=True).reshape(shape[-1], shape[-1])
    np.testing.assert_allclose(found.mean, images.mean(0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.channel_mean, pixels.mean(0))
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9)
    np.testing.assert_array_equal(found.class_counts, [3, 4])
    # Along each component the pixels have the deviation stored with it; all are orthogonal.
    np.testing.assert_allclose((pixels @ found.pca_components).std(0), found.pca_std, rtol=1e-6)
    np.testing.assert_allclose(
        found.pca_components.T @ found.pca_components, np.eye(shape[-1]), atol=1e-12
    )
    assert list(found.pca_std) == sorted(found.pca_std)


def test_the_brightest_images_are_summed_exactly() -> None:
    sums = RunningStatistics.zero((256, 256, 3))
    for _ in range(3):
        sums.add(np.full((256, 256, 3), 255, np.uint8))
    assert (sums.image == 3 * 255).all()
    assert (sums.products == 3 * 256 * 256 * 255 * 255).all()
    np.testing.assert_array_equal(sums.statistics(np.array([3])).pca_std, 0)
