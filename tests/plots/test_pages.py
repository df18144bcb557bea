"""Pages of pictures: what stands where, and that nothing lies over another."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.text import Text

from alexnet_jax.plots import drawing, pages

RNG = np.random.default_rng(0)
LONG_NAMES = [f"great white shark, man-eater, Carcharodon carcharias, number {i}" for i in range(9)]


def random_page(count, classes, labels=True, side=28, channels=1, names=None, **options):
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, side, side, channels), dtype=np.uint8)
    chances = rng.dirichlet(np.ones(classes), count)
    correct = rng.integers(0, classes, count) if labels else None
    names = names or [f"class {i}" for i in range(classes)]
    return (
        images,
        correct,
        chances,
        pages.prediction_page(images, correct, chances, names, **options),
    )


def parts(figure):
    pictures = [axes for axes in figure.axes if axes.images]
    bars = [axes for axes in figure.axes if axes.patches]
    return pictures, bars


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (5, 3), (9, 10), (32, 1000)])
def test_page_shows_each_picture_with_its_best_labels(count, classes):
    images, correct, chances, figure = random_page(count, classes)
    pictures, bars = parts(figure)
    assert len(pictures) == len(bars) == count
    written = [text.get_text() for text in figure.texts]
    for i in range(count):
        np.testing.assert_array_equal(pictures[i].images[0].get_array(), images[i, :, :, 0])
        best = sorted(range(classes), key=lambda c, row=chances[i]: -row[c])[:5]
        patches = bars[i].patches
        np.testing.assert_allclose([bar.get_width() for bar in patches], chances[i][best])
        heights = [bar.get_y() for bar in patches]
        assert (heights[0] < heights[-1]) == bars[i].yaxis_inverted()  # the best is on top
        assert [text.get_text() for text in bars[i].texts[::2]] == [f"class {c}" for c in best]
        orange = [bar.get_facecolor() == to_rgba(pages.CORRECT_COLOR) for bar in patches]
        assert orange == [c == correct[i] for c in best]
        assert written[i] == f"class {correct[i]}"


def test_unknown_pictures_have_neither_correct_label_nor_its_color():
    _, _, _, figure = random_page(4, 6, labels=False)
    _, bars = parts(figure)
    colors = {bar.get_facecolor() for axes in bars for bar in axes.patches}
    assert colors == {to_rgba(pages.OTHER_COLOR)}
    assert figure.texts == []
    assert figure.legends == []


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize(("count", "columns"), [(1, 4), (5, 2), (6, 5)])
def test_nothing_is_cut_off_or_laid_over_another(assert_nothing_cut_off, labels, count, columns):
    title = "A title of some length, for pages wide and narrow"
    figure = random_page(count, 9, labels, names=LONG_NAMES, columns=columns, title=title)[3]
    assert_nothing_cut_off(figure)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [axes.get_window_extent() for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    for axes in parts(figure)[1]:
        inside = [text.get_window_extent(renderer) for text in axes.texts]
        for name, percent in zip(inside[::2], inside[1::2], strict=True):
            assert axes.get_window_extent().x0 < name.x0 < name.x1 < percent.x0
            assert percent.x1 < axes.get_window_extent().x1
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            wide = min(one.x1, other.x1) - max(one.x0, other.x0)
            tall = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert wide < 1e-6 or tall < 1e-6, (one, other)


def test_pictures_are_laid_out_row_by_row():
    images = np.zeros((7, 8, 8, 3), np.uint8)
    figure, spaces = pages.picture_grid(images, columns=3)
    assert spaces == []
    places = [(round(-axes.get_position().y1, 6), axes.get_position().x0) for axes in figure.axes]
    assert places == sorted(places)
    assert len({y for y, _ in places}) == 3
    assert [sum(y == row for y, _ in places) for row in sorted({y for y, _ in places})] == [3, 3, 1]


def test_small_pictures_are_shown_in_squares_and_keep_their_shape(pixels_of_axes):
    images = RNG.integers(0, 256, (2, 14, 28, 3), dtype=np.uint8)
    figure = pages.picture_grid(images, ["a", "b"], title="Two").figure
    for drawn, image in zip(pixels_of_axes(figure), images, strict=True):
        enlarged = np.repeat(np.repeat(image, 8, axis=0), 8, axis=1)
        inside = (slice(2, -2), slice(2, -2))  # the frame lies on the outermost pixels
        np.testing.assert_array_equal(drawn[inside], enlarged[inside])


def test_large_pictures_are_smoothed():
    for side, smooth in ((64, "nearest"), (65, "hanning"), (256, "hanning")):
        figure = pages.picture_grid(np.zeros((1, side, side, 3), np.uint8)).figure
        assert figure.axes[0].images[0].get_interpolation() == smooth


def test_a_dollar_sign_is_a_letter(tmp_path):
    figure = random_page(2, 2, names=["$cash$ machine", "x_{2}^"], title="$1 and $2")[3]
    drawing.save(figure, tmp_path / "a.png")
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((2, 8, 8, 3))},  # not uint8
        {"images": np.zeros((2, 8, 8), np.uint8)},
        {"images": np.zeros((0, 8, 8, 3), np.uint8)},
        {"images": np.zeros((2, 8, 8, 4), np.uint8)},
        {"labels": [0]},
        {"labels": [0, -1]},
        {"labels": [0, 3]},
        {"probabilities": np.ones((2, 4)) / 4},
        {"probabilities": np.ones((3, 3)) / 3},
        {"class_names": ["a", "b"]},
    ],
)
def test_arrays_that_do_not_fit_are_refused(change):
    fitting = {
        "images": np.zeros((2, 8, 8, 3), np.uint8),
        "labels": [0, 2],
        "probabilities": np.ones((2, 3)) / 3,
        "class_names": ["a", "b", "c"],
    }
    pages.prediction_page(**fitting)
    with pytest.raises(ValueError, match=r"pictures|Pictures|Labels"):
        pages.prediction_page(**(fitting | change))


def test_captions_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="captions"):
        pages.picture_grid(np.zeros((2, 8, 8, 1), np.uint8), ["one"])
