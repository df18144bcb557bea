"""Sums and statistics of pictures, against float64 numpy over all pixels at once."""

from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.data.running_statistics import RunningStatistics, Statistics


def pictures(*shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    color = rng.normal(0, [5, 20, 60], (*shape[:3], 3)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return (color + np.array([120, 110, 100])).clip(0, 255).astype(np.uint8)[..., : shape[3]]


@pytest.mark.parametrize("shape", [(7, 6, 5, 3), (4, 5, 300, 3), (5, 4, 6, 1)])
def test_statistics(shape: tuple[int, ...], tmp_path: Path) -> None:
    images = pictures(*shape)
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
    # Along each axis the pixels have the deviation stored with it; the axes are at right angles.
    np.testing.assert_allclose((pixels @ found.pca_components).std(0), found.pca_std, rtol=1e-6)
    np.testing.assert_allclose(
        found.pca_components.T @ found.pca_components, np.eye(shape[-1]), atol=1e-12
    )
    assert list(found.pca_std) == sorted(found.pca_std)


def test_the_brightest_pictures_are_summed_exactly() -> None:
    moments = RunningStatistics.zero((256, 256, 3))
    for _ in range(3):
        moments.add(np.full((256, 256, 3), 255, np.uint8))
    assert (moments.image == 3 * 255).all()
    assert (moments.products == 3 * 256 * 256 * 255 * 255).all()
    statistics = moments.statistics(np.array([3]))
    np.testing.assert_array_equal(statistics.pca_std, 0)
