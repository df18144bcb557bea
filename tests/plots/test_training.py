"""The figures of a run: learning curves, and the kernels of the first layer."""

import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.plots import drawing, training

RNG = np.random.default_rng(0)


def line(step, split="train", rates=None, **values):
    known = {"loss": 2.0, "top1": 0.25, "top5": 0.5, "count": 128}
    rates = {"weights": 0.01} if rates is None else rates
    return (
        known
        | {"step": step, "epoch": step / 10, "split": split}
        | values
        | {"learning_rates": rates}
    )


def curves(axes):
    return {drawn.get_label(): drawn for drawn in axes.lines if drawn.get_label()[0] != "_"}


def test_curves_hold_the_metrics_in_percent_and_epochs():
    lines = [
        line(5, loss=3.0, top1=0.1, top5=0.3),
        line(10, loss=2.0, top1=0.2, top5=0.5),
        line(10, "val", loss=2.5, top1=0.15, top5=0.4),
    ]
    loss, error, _ = training.learning_curves(lines, 10).axes
    np.testing.assert_allclose(curves(loss)["train"].get_xydata(), [[0.5, 3.0], [1.0, 2.0]])
    np.testing.assert_allclose(curves(loss)["val"].get_xydata(), [[1.0, 2.5]])
    assert set(curves(error)) == {"train, top-1", "train, top-5", "val, top-1", "val, top-5"}
    np.testing.assert_allclose(curves(error)["train, top-1"].get_ydata(), [90.0, 80.0])
    np.testing.assert_allclose(curves(error)["val, top-5"].get_ydata(), [60.0])
    assert curves(loss)["val"].get_marker() == "o"  # one point has no line to be seen by


def test_five_classes_have_no_top_five_and_a_run_without_val_has_no_val():
    _, error, _ = training.learning_curves([line(1), line(2)], 5).axes
    assert list(curves(error)) == ["train, top-1"]


def test_a_step_logged_twice_counts_once_as_last_written():
    lines = [line(1, loss=1.0), line(3, loss=9.0), line(2, loss=2.0), line(3, loss=3.0)]
    loss = training.learning_curves(lines, 5).axes[0]
    np.testing.assert_allclose(curves(loss)["train"].get_ydata(), [1.0, 2.0, 3.0])


def test_no_lines_is_a_mistake_with_a_message():
    with pytest.raises(InputError, match="No metrics"):
        training.learning_curves([], 10)


def test_names_of_one_course_share_a_line_and_zero_lies_on_the_axis(tmp_path):
    lines = [
        line(1, rates={"conv1": 0.0, "conv2": 0.0, "fc": 0.1}),
        line(2, rates={"conv1": 0.01, "conv2": 0.01, "fc": 0.1}),
    ]
    figure = training.learning_curves(lines, 5)
    drawing.save(figure, tmp_path / "a.png")
    rates = figure.axes[2]
    assert set(curves(rates)) == {"conv1, conv2", "fc"}
    np.testing.assert_allclose(curves(rates)["conv1, conv2"].get_ydata(), [np.nan, 0.01])
    (frozen,) = [drawn for drawn in rates.lines if drawn not in curves(rates).values()]
    heights = frozen.get_ydata()  # of the panel, not of the logarithmic axis
    assert 0 <= heights[0] < 0.05
    assert np.isnan(heights[1])
    assert "zero" in rates.get_title()
    assert rates.get_yscale() == "log"


def test_rates_that_are_all_zero_or_missing_can_be_drawn(tmp_path):
    for rates in ({"weights": 0.0}, {}):
        figure = training.learning_curves([line(1, rates=rates), line(2, rates=rates)], 5)
        drawing.save(figure, tmp_path / "a.png")
        low, high = figure.axes[2].get_ylim()
        assert 0 < low < high


@pytest.mark.parametrize("groups", [1, 2, 5, 8, 16])
def test_the_legend_covers_no_learning_rate(assert_nothing_cut_off, groups):
    lines = [
        line(step, rates={f"group {i}": 0.03 * 1.2**i for i in range(groups)}) for step in (1, 50)
    ]
    figure = training.learning_curves(lines, 5)
    rates = figure.axes[2]
    figure.draw_without_rendering()
    box = rates.get_legend().get_window_extent()
    highest = rates.transData.transform((0, 0.03 * 1.2 ** (groups - 1)))[1]
    assert box.y0 > highest
    assert box.x0 > rates.get_window_extent().x0
    low, high = rates.get_ylim()
    assert sum(low <= tick <= high for tick in rates.get_yticks()) >= 2
    assert_nothing_cut_off(figure)


def framed(kernels, columns, channels_last_scale):
    """Build one tower's mosaic from its pictures by joining, not by writing into an array."""
    tiles = []
    for index in range(kernels.shape[3]):
        tile = 0.5 + kernels[:, :, :, index] / channels_last_scale[index] / 2
        tile = np.repeat(tile, 3, axis=2) if tile.shape[2] == 1 else tile
        tiles.append(np.pad(tile, ((1, 0), (1, 0), (0, 0)), constant_values=1.0))
    while len(tiles) % columns:
        tiles.append(np.ones_like(tiles[0]))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.pad(np.vstack(rows), ((0, 1), (0, 1), (0, 0)), constant_values=1.0)


@pytest.mark.parametrize(
    ("shape", "towers", "columns"),
    [
        ((11, 11, 3, 96), 2, 16),  # the paper's figure: three rows of sixteen for each tower
        ((11, 11, 3, 96), 1, 16),
        ((11, 11, 3, 64), 1, 16),
        ((5, 5, 1, 32), 1, 8),
        ((5, 4, 3, 48), 2, 12),
        ((3, 3, 3, 97), 1, 14),  # a prime number leaves the last row short
        ((2, 3, 1, 1), 1, 1),
    ],
)
@pytest.mark.parametrize("common", [False, True])
def test_mosaic_holds_every_kernel_in_order(shape, towers, columns, common):
    kernel = RNG.normal(size=shape)
    largest = [np.abs(kernel[..., i]).max() for i in range(shape[3])]
    if common:
        largest = [max(largest)] * shape[3]
    half = shape[3] // towers
    expected = [
        framed(kernel[..., t * half : (t + 1) * half], columns, largest[t * half :])
        for t in range(towers)
    ]
    mosaic = training.kernel_mosaic(kernel, towers, common_scale=common)
    np.testing.assert_allclose(mosaic, np.stack(expected), atol=1e-12)


def test_mosaic_is_upright_and_red_is_the_first_channel():
    kernel = np.zeros((4, 5, 3, 2))
    kernel[0, 4, 0, 0] = 2.0  # top right, red
    kernel[3, 0, 2, 0] = -1.0  # bottom left, less blue
    mosaic = training.kernel_mosaic(kernel)[0]
    np.testing.assert_allclose(mosaic[1, 5], [1.0, 0.5, 0.5])
    np.testing.assert_allclose(mosaic[4, 1], [0.5, 0.5, 0.25])
    np.testing.assert_allclose(mosaic[1:5, 7:12], 0.5)  # the dead kernel is mid-gray


@pytest.mark.parametrize(
    ("kernel", "towers", "message"),
    [
        (np.ones((5, 5, 48, 256)), 1, "first layer"),
        (np.ones((5, 5, 3)), 1, "first layer"),
        (np.ones((5, 5, 3, 5)), 2, "do not divide"),
        (np.full((5, 5, 3, 4), np.nan), 1, "finite"),
    ],
)
def test_kernels_that_cannot_be_drawn(kernel, towers, message):
    with pytest.raises(InputError, match=message):
        training.kernels(kernel, towers)


@pytest.mark.parametrize(("shape", "towers"), [((11, 11, 3, 96), 2), ((5, 5, 1, 32), 1)])
def test_saved_kernels_are_the_mosaics_in_even_pixels(
    pixels_of_axes, assert_nothing_cut_off, shape, towers
):
    kernel = RNG.normal(size=shape)
    figure = training.kernels(kernel, towers)
    assert len(figure.axes) == towers
    for drawn, mosaic in zip(
        pixels_of_axes(figure), training.kernel_mosaic(kernel, towers), strict=True
    ):
        zoom = drawn.shape[0] // mosaic.shape[0]
        assert zoom > 4
        enlarged = np.repeat(np.repeat(mosaic, zoom, axis=0), zoom, axis=1)
        np.testing.assert_allclose(drawn, 255 * enlarged, atol=1.0)
    tops = [axes.get_position().y1 for axes in figure.axes]
    assert tops == sorted(tops, reverse=True)
    assert_nothing_cut_off(figure)


def test_towers_are_named_and_a_lone_one_is_not():
    kernel = RNG.normal(size=(5, 5, 3, 4))
    assert [axes.get_ylabel() for axes in training.kernels(kernel, 2).axes] == [
        "tower 1",
        "tower 2",
    ]
    assert [axes.get_ylabel() for axes in training.kernels(kernel, 1).axes] == [""]


@pytest.mark.parametrize(("common", "words"), [(False, "its own"), (True, "among them")])
def test_the_caption_tells_the_scale(common, words):
    figure = training.kernels(RNG.normal(size=(5, 5, 3, 4)), common_scale=common)
    caption = " ".join(" ".join(text.get_text() for text in figure.texts).split())
    assert "Mid-gray is zero" in caption
    assert words in caption
