"""The figures and tables of a finished run."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from alexnet_jax.reports.training import prediction_page, print_comparison
from alexnet_jax.runtime.workdir import Workdir


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


@pytest.mark.parametrize(("count", "chosen"), [(40, "of 40"), (600, "of 500 spread over all 600")])
def test_the_title_says_how_many_images_were_compared(
    count: int, chosen: str, array_source: Any
) -> None:
    images = np.zeros((count, 1, 1, 1), np.uint8)
    trained: Any = SimpleNamespace(probabilities=probabilities, class_labels=("a", "b"))
    figure = prediction_page(trained, array_source(images))
    assert figure is not None
    assert figure.get_suptitle().endswith(chosen)


def test_a_split_without_readable_images_has_no_page(array_source: Any) -> None:
    trained: Any = SimpleNamespace(probabilities=probabilities, class_labels=("a", "b"))
    source = array_source(np.zeros((2, 1, 1, 1), np.uint8), broken=(0, 1))
    assert prediction_page(trained, source) is None


def test_the_comparison_is_of_the_last_evaluations(tmp_path: Path) -> None:
    """Its standard error is that of the difference of two independent fractions."""
    common = {"split": "val", "epoch": 10.0, "loss": 1.0, "top5": 1.0, "images_per_second": 1e4}
    runs = []
    for name, top1 in (("tuned", (0.9, 0.6)), ("scratch", (0.1, 0.5))):
        (tmp_path / name).mkdir()
        runs.append(Workdir(tmp_path / name))
        for step, value in enumerate(top1, start=1):
            runs[-1].append_metrics({**common, "step": 9000 + step, "top1": value, "count": 100})
    console = Console(file=io.StringIO(), width=80)
    print_comparison(*runs, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    error = 100 * (0.6 * 0.4 / 100 + 0.5 * 0.5 / 100) ** 0.5
    assert "+10.0 points" in text
    assert f"standard error {error:.1f}" in text
    for name, top1 in (("tuned, best", "90.00%"), ("scratch, last", "50.00%")):  # on one line each
        (row,) = [line for line in text.splitlines() if name in line]
        assert top1 in row
