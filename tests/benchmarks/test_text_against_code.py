"""The curves of several runs of two models."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.text_against_code import Curves, compare_runs

PUBLISHED = Path(__file__).parents[2] / "docs" / "text_against_code.json"


def seed_of(loss: float, steps: tuple[int, ...]) -> Curves:
    return {
        "train": [[step, loss + step] for step in steps],
        "val": [[step, 0.0, loss / 10] for step in steps],
    }


def test_a_line_is_the_mean_of_its_seeds() -> None:
    runs = {
        "some": [seed_of(1.0, (10, 20)), seed_of(3.0, (10, 20))],
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


def test_the_published_curves_can_be_drawn() -> None:
    runs = json.loads(PUBLISHED.read_text())
    loss, _ = compare_runs(runs, num_classes=20).axes
    assert len(loss.get_lines()) == len(runs) + 1
