"""What the tests of figures share: looking at a figure as it is drawn."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from alexnet_jax.plots import drawing


@pytest.fixture
def pixels_of_axes(tmp_path):
    """Return a function from a figure to the pixels, as saved, of each of its axes."""

    def cut(figure):
        drawing.save(figure, tmp_path / "pixels.png")
        with Image.open(tmp_path / "pixels.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        cuts = []
        for axes in figure.axes:
            box = axes.get_window_extent()
            bottom, left = pixels.shape[0] - round(box.y0), round(box.x0)
            cuts.append(pixels[bottom - round(box.height) : bottom, left : left + round(box.width)])
        return cuts

    return cut


@pytest.fixture
def assert_nothing_cut_off():
    """Return a check that all that a figure draws lies on its page."""

    def check(figure):
        box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
        width, height = figure.get_size_inches()
        assert 0 <= box.x0 < box.x1 <= width, box
        assert 0 <= box.y0 < box.y1 <= height, box

    return check
