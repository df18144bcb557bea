"""The figure that sets several runs side by side."""

from typing import Any

import numpy as np
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.plots.comparison import compare_runs


def seed_of(loss: float, steps: tuple[int, ...]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in steps:
        lines.append({"step": step, "split": "train", "loss": loss + step, "top1": 0.0})
        lines.append({"step": step, "split": "val", "loss": 0.0, "top1": loss / 10})
    return lines


def test_a_line_is_the_mean_of_its_seeds_where_all_have_a_point() -> None:
    runs = {
        "some": [seed_of(1.0, (10, 20)), seed_of(3.0, (10, 20, 30))],
        "others": [seed_of(5.0, (10,))],
    }
    loss, top1 = compare_runs(runs, num_classes=20).axes
    some, others, chance = loss.get_lines()
    np.testing.assert_allclose(some.get_xydata(), [[10, 12], [20, 22]])
    np.testing.assert_allclose(others.get_xydata(), [[10, 15]])
    assert chance.get_ydata()[0] == pytest.approx(np.log(20))
    np.testing.assert_allclose(top1.get_lines()[0].get_ydata(), [20, 20])
    assert top1.get_lines()[2].get_ydata()[0] == pytest.approx(5)
    assert [text.get_text() for text in loss.get_legend().get_texts()] == [*runs, "chance"]


def test_seeds_without_a_step_in_common() -> None:
    with pytest.raises(InputError, match="train"):
        compare_runs({"a": [seed_of(1, (1,)), seed_of(1, (2,))]}, 10)
