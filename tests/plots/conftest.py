"""What the tests of figures share: measuring a figure as it is drawn."""

import itertools
from collections.abc import Iterator
from typing import Any

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
        boxes = [
            (text.get_text(), text.get_tightbbox(renderer))
            for text in figure.findobj(Text)
            if text.get_visible() and text.get_text().strip() and text not in undrawn
        ]
        for (one, a), (other, b) in itertools.combinations(boxes, 2):
            if a is None or b is None:  # clipped away
                continue
            wide, tall = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide < 1 or tall < 1, (one, other)

    return check


def _labels_out_of_view(axes: Axes) -> Iterator[Text]:
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks():
            if not low <= tick.get_loc() <= high:
                yield from (tick.label1, tick.label2)
