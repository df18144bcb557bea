"""Accuracy by class: every bar as long as its number."""

from typing import Any

import numpy as np
import pytest
from matplotlib.container import BarContainer

from alexnet_jax.plots.evaluation import class_accuracies

LONG = "a name much too long to be written in full next to a bar"


def widths(axes: Any) -> list[float]:
    return [bar.get_width() for group in axes.containers for bar in bars_of(group)]


def bars_of(group: Any) -> list[Any]:
    return list(group.patches) if isinstance(group, BarContainer) else []


def test_classes_are_bars_the_best_first(assert_no_text_overlaps: Any) -> None:
    count, correct = np.array([10, 0, 20, 5]), np.array([4, 0, 18, 5])
    figure = class_accuracies(correct, count, ["a", "none", "b", LONG])
    assert_no_text_overlaps(figure)
    (axes,) = figure.axes
    np.testing.assert_allclose(widths(axes), [1.0, 0.9, 0.4])
    assert [label.get_text() for label in axes.get_yticklabels()][1:] == ["b", "a"]
    assert [text.get_text() for text in axes.texts] == [
        "100%   5 of 5",
        "90%   18 of 20",
        "40%   4 of 10",
    ]
    assert "3 classes, 76.7% on average" in figure.get_suptitle()
    (error,) = axes.collections
    ends = [segment[:, 0] for segment in error.get_segments()]
    errors = [0, (0.9 * 0.1 / 20) ** 0.5, (0.4 * 0.6 / 10) ** 0.5]
    np.testing.assert_allclose([(end - start) / 2 for start, end in ends], errors)


@pytest.mark.parametrize("size", [60, 61, pytest.param(1000, marks=pytest.mark.slow)])
def test_of_many_classes_the_ends_have_names(size: int, assert_no_text_overlaps: Any) -> None:
    correct = np.random.default_rng(0).integers(0, 51, size)
    names = [f"{LONG if label % 2 else 'tabby'} {label}" for label in range(size)]
    figure = class_accuracies(correct, np.full(size, 50), names)
    assert_no_text_overlaps(figure)
    assert [len(widths(axes)) for axes in figure.axes] == ([60] if size == 60 else [0, 25, 25])
    if size > 60:
        ordered = sorted((correct / 50).tolist(), reverse=True)
        assert widths(figure.axes[1]) == pytest.approx(ordered[:25])
        assert widths(figure.axes[2]) == pytest.approx(ordered[-25:])
