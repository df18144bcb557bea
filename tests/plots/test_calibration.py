"""The reliability diagram: every bar where its numbers put it."""

from typing import Any

import numpy as np

from alexnet_jax.plots.evaluation import reliability_diagram


def test_reliability_diagram(assert_no_text_overlaps: Any) -> None:
    count = np.array([0, 30, 1, 6000])
    confident, correct = np.array([0, 0.4, 0.6, 0.9]), np.array([0, 0.5, 0.6, 0.7])
    figure = reliability_diagram(count, confident, correct, 0.153)
    assert_no_text_overlaps(figure)
    above, below = figure.axes
    assert "15.3%" in figure.get_suptitle()
    assert [bar.get_height() for bar in below.patches] == count.tolist()
    assert [text.get_text() for text in below.texts] == ["", "30", "1", "6,000"]
    heights = np.array([bar.get_height() for bar in above.patches]).reshape(3, 4)
    np.testing.assert_allclose(
        heights, [[0, 0.4, 0.6, 0.7], [0, 0, 0, 0.2], [0, 0.1, 0, 0]], atol=1e-12
    )
    bottoms = np.array([bar.get_y() for bar in above.patches]).reshape(3, 4)
    np.testing.assert_allclose(bottoms[1:], [heights[0]] * 2)
    assert [bar.get_x() for bar in below.patches] == [0, 0.25, 0.5, 0.75]
    (legend,) = figure.legends  # clear of the bars
    assert legend.get_window_extent().y1 <= below.get_tightbbox().y0
