"""Pages of images: what is drawn where, and that no texts overlap."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from alexnet_jax.plots import pages

RNG = np.random.default_rng(0)
NAMES = (
    "tabby",
    "great white shark, man-eater, Carcharodon carcharias",
    "$cash$ machine_{2}^",
    "MMMMMMMMWWWWWWWWMMMMMMMMWWWWWWWW",
    "斑马, ゼブラ",
)


def names_of(classes: int) -> list[str]:
    return [f"{NAMES[label % 5]} {label}" for label in range(classes)]


def random_page(count: int, classes: int, **options: Any) -> tuple[Any, Any, Any, Figure]:
    images = RNG.integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    chances = RNG.dirichlet(np.ones(classes), count)
    labels = RNG.integers(0, classes, count)
    figure = pages.prediction_page(images, labels, chances, names_of(classes), **options)
    return images, labels, chances, figure


def parts(figure: Figure) -> tuple[list[Axes], list[Axes]]:
    """Returns the axes of images, and those of bars."""
    return (
        [axes for axes in figure.axes if axes.images],
        [axes for axes in figure.axes if axes.patches],
    )


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (5, 3), (12, 1000)])
def test_page_shows_each_image_with_its_best_labels(count: int, classes: int) -> None:
    images, labels, chances, figure = random_page(count, classes)
    drawn, bars = parts(figure)
    assert len(drawn) == len(bars) == count
    for i in range(count):
        np.testing.assert_array_equal(drawn[i].images[0].get_array(), images[i, :, :, 0])
        best = sorted(range(classes), key=lambda c, row=chances[i]: -row[c])[:5]
        patches = bars[i].patches
        np.testing.assert_allclose([bar.get_width() for bar in patches], chances[i][best])
        heights = [bar.get_y() for bar in patches]
        assert (heights[0] < heights[-1]) == bars[i].yaxis_inverted()  # the best is on top
        for text, label in zip(bars[i].texts[::2], best, strict=True):
            assert names_of(classes)[label].startswith(text.get_text().rstrip("…"))
        correct = [bar.get_facecolor() == to_rgba(pages.CORRECT_COLOR) for bar in patches]
        assert correct == [label == labels[i] for label in best]
        own = names_of(classes)[labels[i]]
        assert own.startswith(drawn[i].get_xlabel().rstrip("…"))


def test_probabilities_are_in_percent() -> None:
    page = pages.prediction_page(
        np.zeros((1, 4, 4, 1), np.uint8),
        np.array([0]),
        np.array([[0.001, 0.999, 0.0]]),
        ["a", "b", "c"],
    )
    texts = [text.get_text() for text in parts(page)[1][0].texts]
    assert texts == ["b", ">99%", "a", "<1%", "c", "0%"]


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
@pytest.mark.parametrize(("count", "columns"), [(1, 4), (6, 5)])
def test_no_texts_overlap(assert_no_text_overlaps: Any, count: int, columns: int) -> None:
    *_, figure = random_page(count, 9, title="A title, $1 and $2")
    assert_no_text_overlaps(figure)
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    drawn, bars = parts(figure)
    for image, below in zip(drawn, bars, strict=True):
        over, under = image.get_window_extent(), below.get_window_extent()
        assert under.y1 < over.y0
        assert (under.x0, under.x1) == pytest.approx((over.x0, over.x1), abs=1.0)
        assert over.width == pytest.approx(over.height)
        assert over.width > 150  # pixels: long names leave the images their size


def test_images_are_laid_out_row_by_row() -> None:
    figure = pages.image_grid(np.zeros((7, 8, 8, 3), np.uint8), "abcdefg", columns=3)
    figure.draw_without_rendering()
    corners = [(round(-a.get_position().y1, 6), a.get_position().x0) for a in figure.axes]
    assert corners == sorted(corners)
    heights = [height for height, _ in corners]
    assert [heights.count(height) for height in sorted(set(heights))] == [3, 3, 1]


def test_captions_and_bars_of_a_grid() -> None:
    captions = [f"{number}.jpg" for number in range(7)]
    given = [
        (pages.Bar("tabby", 0.9 - 0.1 * number), pages.Bar("lynx", 0.01 * number, correct=True))
        for number in range(7)
    ]
    zeros = np.zeros((7, 8, 8, 3), np.uint8)
    figure = pages.image_grid(zeros, captions, given, title="The worst")
    images, bars = parts(figure)
    assert [axes.get_xlabel() for axes in images] == captions
    assert figure.get_suptitle() == "The worst"
    for number, axes in enumerate(bars):
        widths = [bar.get_width() for bar in axes.patches]
        np.testing.assert_allclose(widths, [0.9 - 0.1 * number, 0.01 * number])
        colors = [bar.get_facecolor() for bar in axes.patches]
        assert colors == [to_rgba(pages.OTHER_COLOR), to_rgba(pages.CORRECT_COLOR)]
        assert [text.get_text() for text in axes.texts[::2]] == ["tabby", "lynx"]


def test_captions_and_bars_of_another_number_are_refused() -> None:
    images = np.zeros((2, 8, 8, 1), np.uint8)
    for rest in (["one"], ()), (["one", "two"], [[pages.Bar("a", 0.5)]]):
        with pytest.raises(ValueError, match="zip"):
            pages.image_grid(images, *rest)


@pytest.mark.parametrize("correct", [None, False, True])
def test_only_labeled_images_have_a_legend(correct: bool | None) -> None:
    bars = [[pages.Bar("a", 0.5, correct)]]
    figure = pages.image_grid(np.zeros((1, 8, 8, 1), np.uint8), ["a.jpg"], bars)
    assert len(figure.legends) == (correct is not None)
    (bar,) = parts(figure)[1][0].patches
    color = pages.CORRECT_COLOR if correct else pages.OTHER_COLOR
    assert bar.get_facecolor() == to_rgba(color)
