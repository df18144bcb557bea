"""The mean of a training split, against float64 numpy."""

import dataclasses

import numpy as np
import pytest

from alexnet_jax.data.sources import ArraySource, Examples
from alexnet_jax.data.statistics import mean_of
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


@pytest.mark.parametrize("threads", [1, 3])
def test_mean_image(images: np.ndarray, threads: int) -> None:
    mean = mean_of(source(images), "image", examples=None, threads=threads)
    assert mean.dtype == np.float32
    np.testing.assert_array_equal(mean, images.mean(0, dtype=np.float64).astype(np.float32))


def test_mean_colour(images: np.ndarray) -> None:
    mean = mean_of(source(images), "channel", examples=None, threads=2)
    assert mean.shape == (1, 1, 3)
    np.testing.assert_allclose(mean[0, 0], images.mean((0, 1, 2), dtype=np.float64), rtol=1e-6)


def test_no_mean_reads_nothing() -> None:
    unreadable = source(np.zeros((3, 4, 4, 3), np.uint8), 0, 1, 2)
    mean = mean_of(unreadable, "none", examples=None, threads=1)
    np.testing.assert_array_equal(mean, np.zeros((1, 1, 3)))


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
