"""What the tests of figures share: measuring a figure as it is drawn."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


@pytest.fixture
def assert_no_text_overlaps() -> Any:
    """Returns a check that no two texts of a figure overlap where they are drawn."""

    def check(figure: Figure) -> None:
        figure.draw_without_rendering()
        renderer = FigureCanvasAgg(figure).get_renderer()
        undrawn = {label for axes in figure.axes for label in _labels_out_of_view(axes)}
        boxes = {
            text: text.get_tightbbox(renderer)
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in undrawn
        }
        drawn = [text for text, box in boxes.items() if box]  # the others are clipped away
        corners = np.array([boxes[text].get_points() for text in drawn])
        low, high = corners[:, 0], corners[:, 1]
        shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        overlapping = np.argwhere(np.triu((shared >= 1).all(axis=-1), k=1))
        assert not [[drawn[index].get_text() for index in pair] for pair in overlapping]

    return check


def _labels_out_of_view(axes: Axes) -> Iterator[Text]:
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)
