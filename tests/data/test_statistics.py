"""The mean and the colors of a training split, against float64 numpy."""

import dataclasses

import numpy as np
import pytest
from ml_collections import ConfigDict

from alexnet_jax.data.sources import ArraySource, Examples
from alexnet_jax.data.statistics import shapes_of, statistics_of
from alexnet_jax.errors import InputError

COUNT = 301  # more than two of the batches it is read in, and no multiple


@dataclasses.dataclass(frozen=True)
class PartlyBroken(ArraySource):
    broken: tuple[int, ...] = ()

    def read(self, indices: np.ndarray) -> Examples:
        whole = super().read(indices)
        return whole._replace(readable=~np.isin(indices, self.broken))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    ramp = np.linspace(0, 200, COUNT).astype(np.uint8)  # the part taken matters
    noise = np.random.default_rng(0).integers(0, 56, (COUNT, 5, 5, 3), np.uint8)
    return ramp[:, None, None, None] + noise


def source(images: np.ndarray, *broken: int) -> PartlyBroken:
    return PartlyBroken(
        images, np.zeros(len(images), np.int32), ("a", "b"), "test", images.shape[1], broken
    )


def mean_of(
    source: PartlyBroken, mean: str, *, examples: int | None, threads: int, **more
) -> np.ndarray:
    return statistics_of(source, augment(mean, mean_examples=examples), threads=threads, **more)[
        "mean"
    ]


def augment(mean: str, **changes) -> ConfigDict:
    """Returns the `augment` part of a config."""
    keys = {"mean": mean, "channel_mean": (), "color_noise": "none", "mean_examples": None}
    return ConfigDict(keys | changes)


@pytest.mark.parametrize("threads", [1, 3])
def test_mean_image(images: np.ndarray, threads: int) -> None:
    mean = mean_of(source(images), "image", examples=None, threads=threads)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, images.mean(0, dtype=np.float64).astype(np.float32))


def test_mean_color(images: np.ndarray) -> None:
    mean = mean_of(source(images), "channel", examples=None, threads=2)
    assert mean.shape == (1, 1, 3)
    np.testing.assert_allclose(mean[0, 0], images.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_no_mean_reads_nothing() -> None:
    unreadable = source(np.zeros((3, 4, 4, 3), np.uint8), 0, 1, 2)
    mean = mean_of(unreadable, "none", examples=None, threads=1)
    np.testing.assert_array_equal(mean, np.zeros((1, 1, 3)))


def test_a_given_mean_reads_nothing() -> None:
    unreadable = source(np.zeros((3, 4, 4, 3), np.uint8), 0, 1, 2)
    keys = augment("given", channel_mean=(123.675, 116.28, 103.53))
    (mean,) = statistics_of(unreadable, keys, threads=1).values()
    np.testing.assert_array_equal(mean, np.float32([[[123.675, 116.28, 103.53]]]))


def test_the_mean_image_is_the_same_wherever_it_is_cropped(images: np.ndarray) -> None:
    kinds = [mean_of(source(images), k, examples=9, threads=1) for k in ("image", "image_at_crop")]
    np.testing.assert_array_equal(*kinds)


@pytest.mark.parametrize("mean", ["image", "channel", "given", "none"])
@pytest.mark.parametrize("color", ["code", "text"])
def test_colors_against_the_covariance_of_all_pixels(mean: str, color: str) -> None:
    """Of readable pictures; the mean is the same as without colors."""
    rng = np.random.default_rng(1)
    mixed = rng.normal(0, [6, 20, 50], (200, 5, 4, 3)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    images = (mixed + 120).clip(0, 255).astype(np.uint8)
    images[7], readable = 255, np.delete(np.arange(200), 7)
    square = np.concatenate([images, images[:, :, :1]], axis=2)  # 5 x 5
    keys = augment(mean, color_noise=color, channel_mean=(1.0, 2.0, 3.0))
    found = statistics_of(source(square, 7), keys, threads=2)
    assert {name: array.shape for name, array in found.items()} == shapes_of(keys, (5, 5, 3))
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    pixels = square[readable].reshape(-1, 3).astype(np.float64)
    axes, pca_std = (found[name].astype(np.float64) for name in ("pca_components", "pca_std"))
    covariance = np.cov(pixels, rowvar=False, bias=True)
    np.testing.assert_allclose(axes * pca_std**2 @ axes.T, covariance, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    plain = statistics_of(source(square, 7), augment(mean, channel_mean=(1.0, 2.0, 3.0)), threads=1)
    assert plain.keys() == {"mean"}
    np.testing.assert_allclose(found["mean"], plain["mean"], rtol=1e-6)


def test_white_pictures_do_not_overflow() -> None:
    white = np.full((1000, 2, 2, 1), 255, np.uint8)
    mean = mean_of(source(white), "image", examples=None, threads=2)
    np.testing.assert_array_equal(mean, np.full((2, 2, 1), 255))


def test_a_part_is_spread_over_the_split(images: np.ndarray) -> None:
    mean = mean_of(source(images), "image", examples=4, threads=1)
    expected = images[[0, 100, 200, 300]].mean(0, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_more_examples_than_there_are_means_all(images: np.ndarray) -> None:
    many = mean_of(source(images), "image", examples=10**6, threads=1)
    np.testing.assert_array_equal(many, mean_of(source(images), "image", examples=None, threads=1))


def test_unreadable_pictures_are_left_out(images: np.ndarray) -> None:
    broken = (0, 7, 130, 300)
    mean = mean_of(source(images, *broken), "image", examples=None, threads=2)
    expected = np.delete(images, broken, axis=0).mean(0, dtype=np.float64)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)


def test_nothing_readable_is_told(images: np.ndarray) -> None:
    with pytest.raises(InputError, match="training split can be read"):
        mean_of(source(images[:3], 0, 1, 2), "image", examples=None, threads=1)


def test_progress_reaches_the_end(images: np.ndarray) -> None:
    told: list[tuple[int, int]] = []
    mean_of(
        source(images),
        "channel",
        examples=None,
        threads=2,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(128, COUNT), (256, COUNT), (COUNT, COUNT)]
