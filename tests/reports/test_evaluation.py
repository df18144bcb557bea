"""The files of an evaluation, from predictions made up here."""

import csv
import errno
import io
import json
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.source import ArraySource
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation import measures
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.plots import style
from alexnet_jax.reports.evaluation import Report
from alexnet_jax.runtime.workdir import Workdir

EXAMPLES, CLASSES = 40, 3
OUTPUTS = ClassTable(("n1", "n2", "n3"), ("one", "two", "three")).padded(5)
FILES = {
    *("calibration.png", "classes.csv", "classes.png", "confusion.csv", "confusion.png"),
    *("evaluation.json", "predictions.csv", "worst_mistakes.png"),
}
MakeReport = Callable[..., Report]


@pytest.fixture
def make_report(tmp_path: Path, array_source: Any) -> MakeReport:
    """Returns metadata -> a report of forty images of three classes by a model of five outputs."""
    images = np.zeros((EXAMPLES, 4, 4, 1), np.uint8)
    source: ArraySource = array_source(images, np.arange(EXAMPLES) % CLASSES, CLASSES)
    source.describe = lambda index: f"/images/[b]{index}\udcff.jpg"  # type: ignore[method-assign]
    workdir = tmp_path / "[red]run"  # not markup
    workdir.mkdir()

    def make(**metadata: Any) -> Report:
        known = {"checkpoint": 7, "split": "val[:90%]", "views": "center", **metadata}
        return Report(Workdir(workdir), known, source, OUTPUTS)

    return make


def predictions(seed: int) -> Predictions:
    """Made up at random; some take an image for a class that no image has."""
    chances = np.random.default_rng(seed).dirichlet(np.full(5, 0.5), EXAMPLES)
    labels = np.arange(EXAMPLES) % CLASSES
    own = chances[np.arange(EXAMPLES), labels]
    order = np.argsort(-chances, axis=1)
    return Predictions(
        mask=np.ones(EXAMPLES, bool),
        example_index=np.arange(EXAMPLES, dtype=np.uint32),
        labels=labels,
        ranks=(chances > own[:, None]).sum(axis=1),
        log_probabilities=np.log(own),
        classes=order,
        probabilities=np.take_along_axis(chances, order, axis=1),
    )


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out: they are slow."""
    monkeypatch.setattr(measures, "worst_mistakes", lambda *_: [])
    monkeypatch.setattr(style, "save", lambda *_: None)


def console() -> Console:
    return Console(width=200, record=True, file=io.StringIO())


def test_outputs_without_a_class_have_names(make_report: MakeReport) -> None:
    report, printed = make_report(), console()
    report.write(predictions(0), printed)
    assert {path.name for path in report.folder.iterdir()} == FILES
    with (report.folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == ["n1", "n2", "n3", "unused 3", "unused 4"]
    counts = np.array([row[1:] for row in rows[1:]], int)
    assert counts.sum(axis=1).tolist() == [14, 13, 13, 0, 0]
    assert counts[:, 3:].sum() > 0
    for path in report.folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 200
    text = printed.export_text()
    assert "[red]run" in text
    assert all(name in text for name in FILES)


def test_views_of_one_checkpoint_are_compared(
    make_report: MakeReport, caplog: pytest.LogCaptureFixture, no_figures: None
) -> None:
    """Damaged and foreign files next to them are passed over with a warning."""
    one, other = predictions(0), predictions(1)
    make_report().write(one, console())
    make_report(checkpoint=8, views="dense", scales=(4, 6)).write(other, console())
    report, printed = make_report(views="ten_crops"), console()
    for name, text in (
        ("list", "[]"),
        ("no_json", "{"),
        ("deep", "[" * 100_000),
        ("foreign", '{"checkpoint": 7, "split": "val[:90%]"}'),
        ("no_table", '{"checkpoint": 7, "split": "val[:90%]", "views": "x"}'),
        ("odd_views", '{"checkpoint": 7, "split": "val[:90%]", "views": {}, "scales": 3}'),
    ):
        (report.folder.parent / name).mkdir()
        (report.folder.parent / name / "evaluation.json").write_text(text)
    (report.folder.parent / "folder" / "evaluation.json").mkdir(parents=True)
    report.write(other, printed)
    result = json.loads((report.folder / "evaluation.json").read_text())
    gained = int((other.correct & ~one.correct).sum())
    lost = int((one.correct & ~other.correct).sum())
    assert list(result["against"]) == ["center"]  # that of "dense" is of another checkpoint
    assert (result["against"]["center"]["gained"], result["against"]["center"]["lost"]) == (
        gained,
        lost,
    )
    assert f"{gained} gained, {lost} lost" in printed.export_text()
    assert len(caplog.records) == 6


@pytest.fixture
def nothing_larger_than_a_kilobyte() -> Iterator[None]:
    """Stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_report(
    make_report: MakeReport, request: pytest.FixtureRequest, no_figures: None
) -> None:
    report = make_report()
    report.write(predictions(0), console())
    before = {path.name: path.read_bytes() for path in report.folder.iterdir()}
    request.getfixturevalue("nothing_larger_than_a_kilobyte")
    with pytest.raises(InputError, match="File too large"):
        report.write(predictions(1), console())
    assert {path.name: path.read_bytes() for path in report.folder.iterdir()} == before
    with pytest.raises(InputError, match="evaluation"):
        make_report(views="dense").write(predictions(1), console())
    assert [path.name for path in report.folder.parent.iterdir()] == ["val_-90%_center"]


@pytest.mark.parametrize("blocked", ["evaluation", "evaluation/val_-90%_center"])
def test_a_file_in_the_way(make_report: MakeReport, blocked: str) -> None:
    report = make_report()
    path = report.workdir.path / blocked
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file")
    with pytest.raises(InputError, match="evaluation"):
        report.check_writable()
    assert path.read_text() == "a file"


def test_a_read_only_workdir(make_report: MakeReport, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    report = make_report()
    report.check_writable()
    assert list(report.workdir.path.iterdir()) == []  # the check leaves nothing
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match="Read-only"):
        report.check_writable()


def test_reports_of_different_splits_and_scales_lie_apart(make_report: MakeReport) -> None:
    reports = [
        make_report(split="train[:90%]", views="dense", scales=(32, 48)),
        make_report(split="train[90%:]", views="dense", scales=(32, 48)),
        make_report(split="train[:90%]", views="dense", scales=(32, 40)),
        make_report(split="train[:90%]", views="ten_crops"),
        make_report(split="train[:90]", views="ten_crops"),
        make_report(split="train", views="ten_crops"),
    ]
    assert reports[0].folder.name == "train_-90%_dense_32_48"
    assert len({report.folder for report in reports}) == len(reports)


def test_mistakes_are_named_with_their_folder(
    make_report: MakeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of different classes often have the same name; long names end as the file's."""
    report, drawn = make_report(), dict[str, Any]()
    names = ("/data/n1/0046.jpg", "/data/a_long_name_of_a_class/0046.jpg")
    report.source.describe = lambda index: names[index % 2]  # type: ignore[method-assign]
    monkeypatch.setattr(style, "save", lambda figure, path, _: drawn.update({path.name: figure}))
    report.write(predictions(0), Console(file=io.StringIO()))
    figure = drawn["worst_mistakes.png"]
    captions = {axes.get_xlabel() for axes in figure.axes if axes.images}
    assert captions == {"n1/0046.jpg", f"…{names[1][-23:]}"}
