"""The confusion matrix: every cell and line of its list holds its number."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from alexnet_jax.plots import evaluation

RNG = np.random.default_rng(0)


def matrix_of(size: int) -> np.ndarray:
    return np.stack([RNG.multinomial(50, RNG.dirichlet(np.ones(size))) for _ in range(size)])


def listed(axes: Axes) -> list[list[str]]:
    cells = axes.tables[0].get_celld()
    rows = 1 + max(row for row, _ in cells)
    return [
        [cells[row, column].get_text().get_text() for column in range(3)] for row in range(rows)
    ]


@pytest.mark.parametrize(
    "size", [10, 31, 260, *(pytest.param(size, marks=pytest.mark.slow) for size in (2, 30, 101))]
)
def test_confusion_is_readable_at_any_size(size: int, assert_no_text_overlaps: Any) -> None:
    counts = matrix_of(size)
    long = "a name much too long to be written in full next to a matrix"
    names = [f"{(long, 'tabby')[label % 2]} {label}" for label in range(size)]
    figure = evaluation.confusion_matrix(counts, names)
    if size <= 31:
        assert_no_text_overlaps(figure)
    else:
        figure.draw_without_rendering()
    axes, mistakes = figure.axes
    cells = np.asarray(axes.images[0].get_array())
    assert axes.get_window_extent().width / len(cells) >= 3.5  # pixels
    texts = [text.get_text() for text in axes.texts]
    assert texts == ([f"{100 * n / 50:.0f}" for n in counts.ravel() if n] if size <= 30 else [])
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[1].startswith("tabby 1") if size <= 100 else "tabby 1" not in labels
    assert len(listed(mistakes)) >= 3


def test_cells_of_few_classes_are_their_shares() -> None:
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    drawn = evaluation.confusion_matrix(counts, "abc").axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize(("size", "group"), [(7, 3), (6, 2), (5, 5), (4, 1)])
def test_neighbors_share_a_cell(size: int, group: int) -> None:
    counts = matrix_of(size)
    counts[0] = 0
    cells = -(-size // group)
    expected = np.zeros((cells, cells))
    for row in range(size):
        for column in range(size):
            expected[row // group, column // group] += counts[row, column]
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(evaluation.grouped_shares(counts, group), expected)


def test_the_most_frequent_mistakes_are_listed() -> None:
    counts = np.array([[90, 0, 5], [7, 3, 5], [0, 0, 0]])
    expected = [(1, 0, 7), (0, 2, 5), (1, 2, 5)]
    assert evaluation.most_frequent(counts, 9) == expected
    assert evaluation.most_frequent(counts, 2) == expected[:2]
    _, axes = evaluation.confusion_matrix(counts, ["cat", "dog", "cow"]).axes
    assert listed(axes) == [
        ["correct", "predicted as", "times"],
        ["dog", "cat", "7 of 15"],
        ["cat", "cow", "5 of 95"],
        ["dog", "cow", "5 of 15"],
    ]


def test_without_a_mistake_nothing_is_listed() -> None:
    figure = evaluation.confusion_matrix(np.eye(3, dtype=int), "abc")
    figure.draw_without_rendering()
    assert len(listed(figure.axes[1])) == 1
