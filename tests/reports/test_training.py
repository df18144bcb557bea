"""The figures of a finished run."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alexnet_jax.reports.training import prediction_page


def probabilities(images: np.ndarray) -> np.ndarray:
    """Returns probabilities of class 0 that rise with the gray level of an image."""
    own = images[:, 0, 0, 0] / 255
    return np.stack([own, 1 - own], axis=1)


def levels_drawn(count: int, broken: tuple[int, ...], array_source: Any) -> list[int]:
    """Returns the gray levels on the page of a split whose image i, of class 0, has level i."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    trained: Any = SimpleNamespace(probabilities=probabilities, class_labels=("a", "b"))
    figure = prediction_page(trained, array_source(images, broken=broken))
    assert figure is not None
    return [int(axes.images[0].get_array()[0, 0]) for axes in figure.axes if axes.images]


@pytest.mark.parametrize(
    ("count", "broken", "spread", "hardest"),
    [
        (40, (), np.linspace(10, 39, 10).round(), range(10)),
        (12, (0, 11), [6, 7, 8, 9, 10], [1, 2, 3, 4, 5]),
        (1, (), [0], []),
    ],
)
def test_the_page_shows_spread_images_then_the_hardest(
    count: int, broken: tuple[int, ...], spread: Any, hardest: Any, array_source: Any
) -> None:
    assert levels_drawn(count, broken, array_source) == [*spread, *hardest]


def test_a_split_without_readable_images_has_no_page(array_source: Any) -> None:
    trained: Any = SimpleNamespace(probabilities=probabilities, class_labels=("a", "b"))
    source = array_source(np.zeros((2, 1, 1, 1), np.uint8), broken=(0, 1))
    assert prediction_page(trained, source) is None
