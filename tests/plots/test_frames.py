"""The classes of a video's frames: which are drawn, in which order, and where."""

from typing import Any

import numpy as np
import pytest

from alexnet_jax.plots import frames

RNG = np.random.default_rng(0)


def passing(count: int, classes: int, unreadable: tuple[int, ...] = ()) -> np.ndarray:
    """Returns float[frames, classes]: the classes in reversed order, one after the other."""
    first = (classes - 1 - np.arange(count) * classes // count)[:, None]
    probabilities = np.where(np.arange(classes) == first, 0.9, 0.1 / (classes - 1))
    probabilities[list(unreadable)] = np.nan
    return probabilities


@pytest.mark.parametrize("count", [1, 5, 8, 9, 700])
def test_frames_are_shown_over_their_own_time(count: int) -> None:
    """Of n frames that share the width, each is in the middle of its n-th part."""
    shown = frames.shown_frames(count)
    middles = (np.arange(len(shown)) + 0.5) / len(shown)
    assert len(shown) == min(count, frames.MOST_FRAMES)
    np.testing.assert_allclose((shown + 0.5) / count, middles, atol=1 / count)


def test_classes_are_in_order_of_time() -> None:
    assert frames.main_classes(passing(60, 6, (3, 30))).tolist() == [5, 4, 3, 2, 1, 0]


def test_a_short_certain_class_outweighs_a_long_unlikely_one() -> None:
    probabilities = np.zeros((100, 20))
    probabilities[:, :10] = 0.1
    probabilities[40:43, 15] = 1.0
    found = frames.main_classes(probabilities)
    assert len(found) == frames.MOST_ROWS
    assert 15 in found


def test_classes_that_never_occur_are_left_out() -> None:
    assert frames.main_classes(np.array([[0.0, 1.0, 0.0], [np.nan] * 3])).tolist() == [1]


@pytest.mark.parametrize("count", [3, 40])
def test_each_cell_is_a_probability(count: int, assert_no_text_overlaps: Any) -> None:
    probabilities = passing(count, 3, (1,))
    images = RNG.integers(0, 256, (len(frames.shown_frames(count)), 8, 8, 3), np.uint8)
    numbers = range(1000, 1000 + count)
    figure = frames.class_strip(images, numbers, probabilities, ["a" * 60, "$b$", "c"])
    (strip,) = (axes for axes in figure.axes if axes.get_xlabel())
    (mesh,) = strip.images
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan), probabilities.T)
    assert list(mesh.get_extent()) == [0, count, 3, 0]
    assert_no_text_overlaps(figure)
    labels = [label.get_text() for label in strip.get_xticklabels()]
    assert labels == [f"{1000 + index:,}" for index in frames.shown_frames(count)]


def test_neighbors_of_many_frames_are_averaged_in_place() -> None:
    count = 5 * frames.MOST_COLUMNS + 7
    probabilities = np.linspace(0, 1, count)[:, None]
    images = np.zeros((frames.MOST_FRAMES, 4, 4, 1), np.uint8)
    figure = frames.class_strip(images, range(count), probabilities, ["a"])
    (drawn,) = (axes.images[0].get_array() for axes in figure.axes if axes.get_xlabel())
    middles = (np.arange(frames.MOST_COLUMNS) + 0.5) / frames.MOST_COLUMNS
    np.testing.assert_allclose(drawn[0], middles, atol=2 / count)
