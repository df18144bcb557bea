"""The figures of an evaluation: every bar and cell where its number says, nothing cut off."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from alexnet_jax.plots import calibration, class_accuracy, confusion, drawing, mistakes

RNG = np.random.default_rng(0)
WORDS = ("tabby", "great white shark", "a name much too long to be written in full beside a matrix")


def matrix_of(size, examples=50):
    return np.stack([RNG.multinomial(examples, RNG.dirichlet(np.ones(size))) for _ in range(size)])


def names_of(size):
    return [f"{WORDS[label % 3]} {label}" for label in range(size)]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


# ---- confusion


@pytest.mark.parametrize("size", [2, 10, 30, 31, 101, 260])
def test_confusion_is_readable_at_any_size(size, assert_nothing_cut_off):
    counts = matrix_of(size)
    figure = confusion.confusion_matrix(counts, names_of(size))
    assert_nothing_cut_off(figure)
    (axes,) = figure.axes
    drawn = np.asarray(axes.images[0].get_array())
    side = axes.get_window_extent().width
    assert side / len(drawn) == pytest.approx(round(side / len(drawn)))  # whole pixels a cell
    assert side / len(drawn) >= 4
    if size <= 30:
        percents = [f"{100 * n / 50:.0f}" for n in counts.ravel() if n]
        assert texts_of(axes) == percents
    else:
        assert texts_of(axes) == []
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] == (["0", "20"] if size > 100 else [*map(label_of, names_of(size)[:2])])


def label_of(name):
    return drawing.shorten(name, confusion.LONGEST_NAME, 8.0)


def test_cells_of_few_classes_are_their_shares():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]])
    drawn = confusion.confusion_matrix(counts, "abc").axes[0].images[0].get_array()
    np.testing.assert_allclose(drawn, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize(("size", "group"), [(7, 3), (6, 2), (5, 5), (4, 1)])
def test_neighbors_share_a_cell(size, group):
    counts = matrix_of(size)
    counts[0] = 0
    cells = -(-size // group)
    expected = np.zeros((cells, cells))
    for row in range(size):
        for column in range(size):
            expected[row // group, column // group] += counts[row, column]
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(confusion.grouped_shares(counts, group), expected)


def test_the_most_frequent_mistakes_are_listed():
    counts = np.array([[90, 0, 5], [7, 3, 5], [0, 0, 0]])
    expected = [(1, 0, 7), (0, 2, 5), (1, 2, 5)]
    assert confusion.most_frequent(counts, 9) == expected
    assert confusion.most_frequent(counts, 2) == expected[:2]
    figure = confusion.confusion_matrix(counts, ["cat", "dog", "cow"])
    written = [text.get_text() for text in figure.texts]
    assert written[1:] == [
        *("correct", "dog", "cat", "dog"),
        *("taken for", "cat", "cow", "cow"),
        *("times", "7 of 15", "5 of 95", "5 of 15"),
    ]


# ---- accuracy by class


def test_classes_are_bars_the_best_first(assert_nothing_cut_off):
    count, right = np.array([10, 0, 20, 5]), np.array([4, 0, 18, 5])
    figure = class_accuracy.class_accuracies(right, count, ["a", "none", "b", WORDS[2]])
    assert_nothing_cut_off(figure)
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [100, 90, 40]
    assert [label.get_text() for label in axes.get_yticklabels()][1:] == ["b", "a"]
    assert texts_of(axes) == ["100%   5 of 5", "90%   18 of 20", "40%   4 of 10"]
    assert "3 classes, 76.7% on average" in figure.texts[0].get_text()
    (error,) = axes.collections
    ends = [segment[:, 0] for segment in error.get_segments()]
    errors = [0, 100 * (0.9 * 0.1 / 20) ** 0.5, 100 * (0.4 * 0.6 / 10) ** 0.5]
    np.testing.assert_allclose([(right - left) / 2 for left, right in ends], errors)


@pytest.mark.parametrize("size", [60, 61, 1000])
def test_of_many_classes_the_ends_have_names(size, assert_nothing_cut_off):
    right = RNG.integers(0, 51, size)
    figure = class_accuracy.class_accuracies(right, np.full(size, 50), names_of(size))
    assert_nothing_cut_off(figure)
    rows = [len(axes.patches) for axes in figure.axes]
    assert rows == ([60] if size == 60 else [0, 25, 25])
    if size > 60:
        ordered = sorted((right * 2).tolist(), reverse=True)
        best, worst = ([bar.get_width() for bar in axes.patches] for axes in figure.axes[1:])
        assert best == pytest.approx(ordered[:25])
        assert worst == pytest.approx(ordered[-25:])


# ---- calibration


def test_reliability_diagram(assert_nothing_cut_off):
    count = np.array([0, 30, 10, 60])
    sure, right = np.array([0, 0.4, 0.6, 0.9]), np.array([0, 0.5, 0.6, 0.7])
    figure = calibration.reliability_diagram(count, sure, right, 0.153)
    assert_nothing_cut_off(figure)
    above, below = figure.axes
    assert above.get_title() == "Expected calibration error 15.3%"
    assert [bar.get_height() for bar in below.patches] == count.tolist()
    heights = np.array([bar.get_height() for bar in above.patches]).reshape(3, 4)
    np.testing.assert_allclose(
        heights, [[0, 0.4, 0.6, 0.7], [0, 0, 0, 0.2], [0, 0.1, 0, 0]], atol=1e-12
    )
    bottoms = np.array([bar.get_y() for bar in above.patches]).reshape(3, 4)
    np.testing.assert_allclose(bottoms[1:], [heights[0]] * 2)
    assert [bar.get_x() for bar in below.patches] == [0, 0.25, 0.5, 0.75]


# ---- mistakes


@pytest.mark.parametrize("count", [1, 7])
def test_mistakes(count, assert_nothing_cut_off):
    images = RNG.integers(0, 256, (count, 8, 8, 3), np.uint8)
    figure = mistakes.mistakes_page(
        images,
        [f"{label}.jpg" for label in range(count)],
        [(WORDS[0], 0.9 - 0.1 * place) for place in range(count)],
        [(WORDS[1], 0.01 * place) for place in range(count)],
        title="The worst",
    )
    assert_nothing_cut_off(figure)
    bars = [axes for axes in figure.axes if axes.patches]
    assert len(bars) == count
    for place, axes in enumerate(bars):
        widths = [bar.get_width() for bar in axes.patches]
        np.testing.assert_allclose(widths, [0.9 - 0.1 * place, 0.01 * place])
        colors = [bar.get_facecolor() for bar in axes.patches]
        assert colors == [to_rgba(mistakes.OTHER_COLOR), to_rgba(mistakes.CORRECT_COLOR)]
        assert texts_of(axes)[::2] == list(WORDS[:2])
    written = [text.get_text() for text in figure.texts]
    assert written == ["The worst", *(f"{label}.jpg" for label in range(count))]


def test_mistakes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        mistakes.mistakes_page(np.zeros((2, 8, 8, 1), np.uint8), ["a"], [], [], title="")
