"""Saving, and text that fits."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from alexnet_jax.plots import drawing, pages, training

LONG_NAME = "great white shark, man-eater, Carcharodon carcharias"
KNOWN = {"loss": 2.0, "top1": 0.25, "top5": 0.5, "learning_rates": {"weights": 0.01}}
LINES = [
    KNOWN | {"step": 1, "epoch": 0.5, "split": "train"},
    KNOWN | {"step": 2, "epoch": 1.0, "split": "val"},
]


def test_saved_file_is_a_png_of_the_figures_size_without_metadata(tmp_path):
    drawing.save(drawing.new_figure(2.0, 1.5), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (2 * 128, 3 * 64))
        assert picture.text == {}
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: training.learning_curves(LINES, 1000),
        lambda: training.kernels(np.arange(4 * 4 * 3 * 6).reshape(4, 4, 3, 6), 2),
        lambda: pages.prediction_page(
            np.full((2, 8, 8, 3), 99, np.uint8), [0, 1], np.eye(2), ["a", "b"], title="Two"
        ),
    ],
)
def test_the_same_figure_gives_the_same_bytes(tmp_path, draw):
    figure = draw()
    for name, what in (("a", figure), ("b", figure), ("c", draw())):
        drawing.save(what, tmp_path / name)
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    class Broken(Artist):
        def draw(self, renderer):
            raise RuntimeError("cannot be drawn")

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = drawing.new_figure(1.0, 1.0)
    figure.add_artist(Broken())
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        drawing.save(figure, path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_put_in_place_is_removed(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        drawing.save(drawing.new_figure(1.0, 1.0), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_callers_matplotlib_is_left_alone(tmp_path):
    program = f"""
import sys, matplotlib
matplotlib.rcParams["font.size"] = 23.0
before = matplotlib.rcParams.copy()
from alexnet_jax.plots import drawing, pages, training
import numpy as np
drawing.save(training.kernels(np.ones((3, 3, 1, 4))), {str(tmp_path / "a.png")!r})
pages.picture_grid(np.zeros((1, 4, 4, 1), np.uint8))
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("text", [LONG_NAME, "iiiii, lllll; jjjjj " * 9, "MMMMMWWWWW" * 9])
@pytest.mark.parametrize("width", [0.5, 1.35])
def test_shortened_text_fits_and_fills_its_width(text, width):
    short = drawing.shorten(text, width, 7.5)
    figure = drawing.new_figure(4.0, 1.0)
    drawn = figure.text(0, 0, short, fontsize=7.5).get_window_extent(
        FigureCanvasAgg(figure).get_renderer()
    )
    assert short.endswith("…")
    assert text.startswith(short[:-1])
    # A word's end may have been cut back by a comma and a space; letters are hinted to pixels.
    assert 0.7 * width < drawn.width / drawing.DPI < 1.03 * width


def test_text_that_fits_is_only_put_on_one_line():
    assert drawing.shorten(" sea\n lion ", 2.0, 9.0) == "sea lion"


def test_wrapped_lines_fit_and_hold_every_word():
    lines = drawing.wrap(LONG_NAME, 1.5, 12.0)
    assert " ".join(lines) == LONG_NAME
    assert max(drawing.text_width(text, 12.0) for text in lines) <= 1.5
    assert len(lines) > 2
    assert drawing.wrap("", 1.0, 9.0) == []
