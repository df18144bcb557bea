"""Saving, and text that all figures share."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from PIL import Image

from alexnet_jax.plots import style, training

NAME = "great white shark, man-eater, Carcharodon carcharias"


@style.styled
def ramp() -> Figure:
    figure = Figure(figsize=(2.0, 1.0), layout="compressed")
    figure.add_subplot(xticks=[], yticks=[]).imshow(np.eye(4))
    return figure


def test_saved_file_is_a_png_without_metadata_and_the_same_each_time(tmp_path: Path) -> None:
    figure = ramp()
    for name, what in (("a", figure), ("b", figure), ("c", ramp())):
        style.save(what, tmp_path / name, "a run")
    with Image.open(tmp_path / "a") as image:
        image.load()
        assert image.format == "PNG"
        assert image.text == {}
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_the_footer_is_below_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also below a legend, and in letters that no font has."""
    boxes: list[Any] = []

    def look(figure: Figure, *_: Any, **__: Any) -> None:
        figure.draw_without_rendering()
        boxes.extend(artist.get_window_extent() for artist in (figure.texts[-1], *figure.legends))
        assert figure.texts[-1].get_text().strip() == "a run, 斑马\ufffd"
        original(figure, *_, **__)

    original = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", look)
    for legend in (False, True):
        figure = Figure(figsize=(3.0, 2.0))
        figure.add_subplot().plot([0, 1], label="line")
        if legend:
            style.legend_below(figure)
        style.save(figure, tmp_path / "a.png", "a run, 斑马\udcff")
    lone, footer, legend_box = boxes
    assert lone.y1 <= 0
    # The footer's own lines begin after as many empty ones as the legend is high.
    assert legend_box.y1 <= 0
    assert footer.y0 < legend_box.y0


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    class Broken(Artist):
        def draw(self, renderer: Any) -> None:
            raise RuntimeError("cannot be drawn")

    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = Figure(figsize=(1.0, 1.0))
    figure.add_artist(Broken())
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        style.save(figure, path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        style.save(Figure(figsize=(1.0, 1.0)), tmp_path / "folder")
    assert path.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder"]


@pytest.mark.parametrize("backend", ["nonsense", pytest.param("svg", marks=pytest.mark.slow)])
def test_the_callers_matplotlib_is_unchanged(tmp_path: Path, backend: str) -> None:
    """Whatever backend is named, installed or not; and its own settings change no figure."""
    program = f"""
import os, sys
from alexnet_jax.plots import style, training
import matplotlib, numpy
if {backend!r} == "svg":
    assert dict.__getitem__(matplotlib.rcParams, "backend") == "svg"
assert os.environ["MPLBACKEND"] == {backend!r}
matplotlib.rcParams.update({{"font.size": 23.0, "savefig.dpi": 10, "text.usetex": True}})
before = matplotlib.rcParams.copy()
style.save(training.kernels(numpy.arange(288).reshape(4, 4, 3, 6), 2), sys.argv[1])
assert matplotlib.rcParams.copy() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = {**os.environ, "MPLBACKEND": backend}
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    subprocess.run(command, check=True, env=environment)
    style.save(training.kernels(np.arange(288).reshape(4, 4, 3, 6), 2), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        (" sea\n lion ", 8, "sea lion"),
        (NAME, len(NAME), NAME),
        (NAME, 17, "great white shar…"),
        (NAME, 19, "great white shark…"),
        ("斑马斑马", 8, "斑马斑马"),
        ("斑马斑马", 7, "斑马斑…"),
        ("", 5, ""),
        ("a\udcffb\x1b[31m", 20, "a\ufffdb\ufffd[31m"),  # a file name of any bytes
    ],
)
def test_shortened_text_has_at_most_so_many_letters(text: str, width: int, short: str) -> None:
    assert style.shorten(text, width) == short


@pytest.mark.parametrize(
    ("share", "text"),
    [
        *((0.0, "0%"), (1e-30, "<1%"), (0.0049, "<1%"), (0.006, "1%"), (0.5, "50%")),
        *((0.994, "99%"), (0.996, ">99%"), (1.0, "100%")),
    ],
)
def test_small_shares_are_not_nothing_and_large_ones_not_everything(
    share: float, text: str
) -> None:
    assert style.percent(share) == text
