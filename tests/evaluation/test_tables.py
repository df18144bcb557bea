"""The CSV files, read back by the csv module."""

import csv
from pathlib import Path

import numpy as np
import pytest

from alexnet_jax.evaluation import tables
from alexnet_jax.evaluation.predictions import Predictions

NAMES = ("cat", 'dog, "domestic"', "Küken")
CONFUSION = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 2]])
TOP5 = np.array([4, 0, 6])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_classes(tmp_path: Path) -> None:
    tables.write_classes(tmp_path / "classes.csv", CONFUSION, TOP5, NAMES)
    cat, dog, chick = read(tmp_path / "classes.csv")
    assert [row["class"] for row in (cat, dog, chick)] == list(NAMES)
    assert (cat["label"], cat["count"], cat["top1"], cat["top5"]) == ("0", "4", "0.7500", "1.0000")
    assert float(cat["top1_standard_error"]) == pytest.approx((0.75 * 0.25 / 4) ** 0.5, abs=1e-4)
    assert (cat["most_often_taken_for"], cat["times"]) == (NAMES[1], "1")
    assert (chick["top1"], chick["most_often_taken_for"], chick["times"]) == ("0.3333", "cat", "2")
    assert (dog["count"], dog["top1"], dog["most_often_taken_for"]) == ("0", "", "")


def test_confusion(tmp_path: Path) -> None:
    tables.write_confusion(tmp_path / "confusion.csv", CONFUSION, NAMES)
    rows = read(tmp_path / "confusion.csv")
    assert [row.pop("correct \\ predicted") for row in rows] == list(NAMES)
    assert [list(map(int, row.values())) for row in rows] == CONFUSION.tolist()
    assert list(rows[0]) == list(NAMES)


def test_predictions(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    two = Predictions(
        mask=np.array([True, True]),
        example_index=np.array([0, 2], np.uint32),
        labels=np.array([1, 2]),
        ranks=np.array([0, 2]),
        log_probabilities=np.log([0.5, 0.125]),
        classes=np.array([[1, 0, 2], [0, 1, 2]]),
        probabilities=np.array([[0.5, 0.3, 0.2], [0.5, 0.375, 0.125]]),
    )
    tables.write_predictions(path, two, ["a.jpg", "b\udcff.jpg"], NAMES)  # a name of any bytes
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        first, second = csv.DictReader(file)
    assert list(first.values()) == [
        *("0", "a.jpg", "1", NAMES[1], "1", "0.5"),
        *(NAMES[1], "0.5", "cat", "0.3", "Küken", "0.2"),
    ]
    assert (second["example"], second["rank"], second["probability"]) == (
        "b\udcff.jpg",
        "3",
        "0.125",
    )
    assert (second["class_2"], second["p_2"]) == (NAMES[1], "0.375")
    assert tables.read_ranks(path) == {0: 1, 2: 3}
