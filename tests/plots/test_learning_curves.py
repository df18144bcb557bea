"""The learning curves hold the metrics of a run."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from alexnet_jax.errors import InputError
from alexnet_jax.plots.training import learning_curves


def line(step: int, split: str = "train", **values: Any) -> dict[str, Any]:
    known = {"loss": 2.0, "top1": 0.25, "top5": 0.5, "learning_rates": {"weights": 0.01}}
    return {**known, "step": step, "epoch": step / 10, "split": split, **values}


def curves(axes: Axes) -> dict[Any, Any]:
    return {drawn.get_label(): drawn for drawn in axes.lines}


def test_curves_hold_the_metrics_in_percent_and_epochs() -> None:
    lines = [
        line(5, loss=3.0, top1=0.1, top5=0.3),
        line(10, loss=2.0, top1=0.2, top5=0.5),
        line(10, "val", loss=2.5, top1=0.15, top5=0.4),
    ]
    loss, error, _ = learning_curves(lines, 10).axes
    np.testing.assert_allclose(curves(loss)["train"].get_xydata(), [[0.5, 3.0], [1.0, 2.0]])
    np.testing.assert_allclose(curves(loss)["val"].get_xydata(), [[1.0, 2.5]])
    assert set(curves(error)) == {"train, top-1", "train, top-5", "val, top-1", "val, top-5"}
    np.testing.assert_allclose(curves(error)["train, top-1"].get_ydata(), [90.0, 80.0])
    np.testing.assert_allclose(curves(error)["val, top-5"].get_ydata(), [60.0])
    assert curves(loss)["val"].get_marker() == "o"  # one point has no line to be seen by


def test_five_classes_have_no_top_five_and_a_run_without_val_has_no_val() -> None:
    _, error, _ = learning_curves([line(1), line(2)], 5).axes
    assert list(curves(error)) == ["train, top-1"]


@pytest.mark.parametrize(
    ("top1", "scale", "low", "high"),
    [
        ([0.1, 0.5, 0.85], "linear", 0.0, 95.4),  # errors of 90, 50 and 15 percent
        ([0.1, 0.5, 0.98], "log", 1.6, 112.5),
        ([0.1, 0.98, 1.0], "log", 1.6, 112.5),  # no error at last: on the axis
        ([1.0, 1.0, 1.0], "linear", 0.0, 1.0),
    ],
)
def test_small_errors_have_a_logarithmic_axis(
    top1: list[float], scale: str, low: float, high: float
) -> None:
    lines = [line(step, top1=share, top5=1.0) for step, share in enumerate(top1, start=1)]
    axes = learning_curves(lines, 5).axes[1]
    assert axes.get_yscale() == scale
    assert axes.get_ylim() == pytest.approx((low, high))
    axes.figure.draw_without_rendering()
    ticks = {label.get_text() for label in axes.get_yticklabels()}
    assert ({"2", "10", "50", "100"} if scale == "log" else {"0"} if low else set()) <= ticks


def test_errors_of_zero_are_drawn_on_a_logarithmic_axis() -> None:
    shares = [0.5, 0.98, 1.0, 0.96, 1.0]
    lines = [line(step, top1=share, top5=1.0) for step, share in enumerate(shares, start=1)]
    axes = learning_curves(lines, 5).axes[1]
    low, _ = axes.get_ylim()
    (drawn,) = axes.lines
    np.testing.assert_allclose(drawn.get_ydata(), [50.0, 2.0, low, 4.0, low])
    assert 0 < low < 2
    assert not drawn.get_clip_on()  # all of a marker on the axis is visible
    assert "zero" in axes.get_title()


def test_no_lines_are_an_input_error() -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        learning_curves([], 10)


def test_names_with_the_same_rates_share_a_line_and_zero_is_on_the_axis() -> None:
    lines = [
        line(1, learning_rates={"conv1": 0.0, "conv2": 0.0, "fc": 0.1}),
        line(2, learning_rates={"conv1": 0.01, "conv2": 0.01, "fc": 0.1}),
    ]
    rates = learning_curves(lines, 5).axes[2]
    assert set(curves(rates)) == {"conv1, conv2", "fc"}
    low, high = rates.get_ylim()
    np.testing.assert_allclose(curves(rates)["conv1, conv2"].get_ydata(), [low, 0.01])
    assert 0 < low < 0.01 < 0.1 < high
    assert "zero" in rates.get_title()
    assert rates.get_yscale() == "log"


@pytest.mark.parametrize("known", [{"weights": 0.0}, {}])
def test_rates_that_are_all_zero_or_missing_can_be_drawn(known: dict[str, float]) -> None:
    lines = [line(1, learning_rates=known), line(2, learning_rates=known)]
    figure = learning_curves(lines, 5)
    figure.draw_without_rendering()
    low, high = figure.axes[2].get_ylim()
    assert 0 <= low < high


@pytest.mark.parametrize("groups", [1, 16])
def test_the_legend_covers_no_learning_rate(groups: int, assert_no_text_overlaps: Any) -> None:
    known = {f"group {i}": 0.03 * 1.2**i for i in range(groups)}
    figure = learning_curves([line(step, learning_rates=known) for step in (1, 50)], 5)
    assert_no_text_overlaps(figure)
    rates = figure.axes[2]
    assert rates.get_legend().get_window_extent().x0 >= rates.get_window_extent().x1
    low, high = rates.get_ylim()
    assert sum(low <= tick <= high for tick in rates.get_yticks()) >= 2
