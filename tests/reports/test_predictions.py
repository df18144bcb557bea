"""The files and the table of predictions, from answers made up here."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.plots import style
from alexnet_jax.reports import predictions
from alexnet_jax.reports.predictions import Answers, Report, frame_numbers

OUTPUTS = ClassTable(("n1", "n2", "n3"), ("tabby, tabby cat", "[red]lynx", "crane"))


@pytest.fixture
def answers(array_source: Any) -> Any:
    """Returns (number of images, unreadable ones) -> answers, the first class the most probable."""

    def make(count: int, *unreadable: int) -> Answers:
        source = array_source(np.zeros((count, 4, 4, 1), np.uint8))
        source.describe = lambda index: f"/images/[b]{index}.jpg"
        shares = np.tile(np.array([0.7, 0.2, 0.1], np.float32), (count, 1))
        classes = (np.arange(count)[:, None] + np.arange(3)) % 3
        shares[list(unreadable)] = np.nan
        return Answers(source, OUTPUTS, classes, shares, dict.fromkeys(unreadable, "it is broken"))

    return make


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return Report(tmp_path / "found", 2, None, "a run")


def written(report: Report, answers: Answers) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    report.write(answers, console)
    return console.export_text()


def test_every_image_has_a_line_in_both_files(report: Report, answers: Any) -> None:
    written(report, answers(3, 1))
    lines = (report.folder / "predictions.jsonl").read_text().splitlines()
    first, broken, last = map(json.loads, lines)
    assert first == {
        "image": "/images/[b]0.jpg",
        "classes": [
            {"class": "n1", "label": "tabby, tabby cat", "probability": 0.7},
            {"class": "n2", "label": "[red]lynx", "probability": 0.2},
        ],
    }
    assert broken == {"image": "/images/[b]1.jpg", "error": "it is broken"}
    assert [best["class"] for best in last["classes"]] == ["n3", "n1"]
    with (report.folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for line, row in zip((first, broken, last), rows, strict=True):
        assert row.pop("image") == line["image"]
        values = [str(value) for best in line.get("classes", ()) for value in best.values()]
        assert list(row.values()) == (values or [""] * 6)


def test_few_images_are_printed_in_full(report: Report, answers: Any) -> None:
    """The first synonym is enough, and names are not markup."""
    text = written(report, answers(2, 1))
    for expected in ("[b]0.jpg", "tabby", "70.0%", "[red]lynx", "20.0%", "[b]1.jpg", "unreadable"):
        assert expected in text
    assert "tabby cat" not in text
    assert "crane" not in text  # the third of two
    assert str(report.folder) in text.replace("\n", "")


def test_of_many_images_the_first_are_printed(
    report: Report, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(style, "save", lambda *_: None)
    text = written(report, answers(1_021))
    assert text.count("70.0%") == predictions.ROWS_PRINTED
    assert "20.0%" not in text
    assert "1,001 more" in text


def test_figures_of_frames_replace_older_files(report: Report, answers: Any) -> None:
    frames = Report(report.folder, 2, range(9), "a run")
    written(frames, answers(9, 4))
    names = {"predictions.csv", "predictions.jsonl", "predictions.png", "frames.png"}
    assert {path.name for path in report.folder.iterdir()} == names
    for name in ("frames.png", "predictions.png"):
        with Image.open(report.folder / name) as image:
            assert image.width > 300
    written(report, answers(9))
    assert {path.name for path in report.folder.iterdir()} == names - {"frames.png"}


def test_without_a_readable_image_there_are_no_figures(report: Report, answers: Any) -> None:
    written(Report(report.folder, 2, range(2), "a run"), answers(2, 0, 1))
    assert sorted(path.name for path in report.folder.iterdir()) == [
        "predictions.csv",
        "predictions.jsonl",
    ]


def test_a_file_where_the_folder_should_be(report: Report, answers: Any) -> None:
    report.folder.write_text("a file")
    with pytest.raises(InputError, match="found"):
        written(report, answers(1))
    assert report.folder.read_text() == "a file"


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["a/f8.png", "a/f9.png", "a/f10.png"], [8, 9, 10]),
        (["a/f008.png", "a/f018.png", "a/f028.png"], [8, 18, 28]),
        (["1.jpg", "2.jpg", "3.jpg"], [1, 2, 3]),
        (["a/f1.png", "a/f2.png"], None),  # two images are no video
        (["a/f1.png", "a/f2.png", "a/f4.png"], None),
        (["a/f3.png", "a/f2.png", "a/f1.png"], None),
        (["a/f1.png", "a/f2.png", "b/f3.png"], None),
        (["a/f1.png", "a/g2.png", "a/f3.png"], None),
        (["a/f1.png", "a/f1.jpg", "a/f1.gif"], None),
        (["a/cat.png", "a/dog.png", "a/eel.png"], None),
        (["a/cat.png"], None),
    ],
)
def test_frames_are_numbered_in_equal_steps(names: list[str], numbers: list[int] | None) -> None:
    assert frame_numbers(list(map(Path, names))) == numbers
