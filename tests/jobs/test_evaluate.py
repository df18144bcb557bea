import csv
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.data import digits
from alexnet_jax.evaluation import measures
from alexnet_jax.jobs.evaluate import warn_of_untrained_views
from alexnet_jax.plots import style
from alexnet_jax.preprocessing.augment import Augmentation

RunMain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def workdir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to evaluate."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def evaluate(run_main: RunMain, workdir: Path) -> RunMain:
    """Runs the job on the run's own config with overrides."""

    def run(*overrides: str) -> tuple[int, str, str]:
        args = ("--config.job=evaluate", f"--workdir={workdir}")
        return run_main(*args, *(f"--config.{override}" for override in overrides))

    return run


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out: they are slow."""
    monkeypatch.setattr(measures, "worst_mistakes", lambda *_: [])
    monkeypatch.setattr(style, "save", lambda *_: None)


def result_of(workdir: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((workdir / "evaluation.json").read_text())
    return result


def test_the_whole_split_is_counted(evaluate: RunMain, workdir: Path, no_figures: None) -> None:
    """Against the logits of the held-out digits computed here, in one batch, in float64."""
    code, output, _ = evaluate("data.eval_split=val")
    assert code == 0
    result = result_of(workdir)

    images, labels = digits.read_digits()
    held_out = np.concatenate([np.flatnonzero(labels == label)[4::5] for label in range(10)])
    images, labels = images[held_out], labels[held_out]
    logits = np.asarray(alexnet_jax.load(workdir).logits(images), np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    own = logits[np.arange(1000), labels]
    rank = (logits > own[:, None]).sum(axis=1)

    assert (result["split"], result["checkpoint"], result["count"]) == ("val", 4, 1000)
    assert result["loss"] == pytest.approx(-log_probabilities[np.arange(1000), labels].mean(), 1e-4)
    assert result["top1"] == pytest.approx((rank < 1).mean(), abs=2e-3)
    assert result["top5"] == pytest.approx((rank < 5).mean(), abs=2e-3)
    for name in ("top1", "top5"):
        error = (result[name] * (1 - result[name]) / 1000) ** 0.5
        assert result[f"{name}_standard_error"] == pytest.approx(error)
    assert "1,000" in output
    assert f"{result['top1']:.2%}" in output


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_report_agrees_with_itself_and_with_the_run(evaluate: RunMain, workdir: Path) -> None:
    """Every file counts the same 137 digits, and every wrong one is a mistake of some class."""
    status = (workdir / "status.json").read_bytes()
    code, output, _ = evaluate()
    assert code == 0
    assert_measured_as_in_training(workdir, status)
    folder = workdir / "evaluation" / "val_-137_center"
    assert (folder / "evaluation.json").read_text() == (workdir / "evaluation.json").read_text()
    result = result_of(workdir)
    predicted = read(folder / "predictions.csv")
    classes, confusion = read(folder / "classes.csv"), read(folder / "confusion.csv")
    correct = [row for row in predicted if row["class_1"] == row["class"]]
    assert {row["rank"] for row in correct} == {"1"}
    assert (result["count"], result["unreadable"]) == (len(predicted), 0) == (137, 0)
    assert [int(row["index"]) for row in predicted] == list(range(137))
    assert result["top1"] == pytest.approx(len(correct) / 137)
    assert result["top5"] == pytest.approx(sum(int(row["rank"]) <= 5 for row in predicted) / 137)
    for label in range(10):
        own = [row for row in predicted if row["label"] == str(label)]
        assert int(classes[label]["count"]) == len(own)
        assert float(classes[label]["top1"]) == pytest.approx(
            sum(row in correct for row in own) / len(own), abs=1e-4
        )
        for other in range(10):
            taken_for = sum(row["class_1"] == str(other) for row in own)
            assert int(confusion[label][str(other)]) == taken_for
    assert sum(row["count"] for row in result["calibration"]) == 137
    assert 0 < result["expected_calibration_error"] < 1
    for name in ("classes", "confusion", "calibration", "worst_mistakes"):
        with Image.open(folder / f"{name}.png") as image:
            assert image.width > 300
        assert f"{name}.png" in output


def assert_measured_as_in_training(workdir: Path, status: bytes) -> None:
    result = result_of(workdir)
    measured = json.loads(status)["last"]["val"]
    assert result["count"] == measured["count"] == 137
    assert result["loss"] == pytest.approx(measured["loss"], 1e-5)
    assert (result["top1"], result["top5"]) == (measured["top1"], measured["top5"])
    assert (workdir / "status.json").read_bytes() == status


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ("evaluation.checkpoint=latest", "evaluation.batch_size=41"),
        ("parallel.strategy=data", "parallel.devices=2"),
        ("parallel.strategy=tower", "parallel.devices=2"),
    ],
)
def test_it_is_what_the_run_measured_itself(
    evaluate: RunMain, workdir: Path, overrides: tuple[str, ...]
) -> None:
    status = (workdir / "status.json").read_bytes()
    assert evaluate(*overrides)[0] == 0
    assert_measured_as_in_training(workdir, status)


@pytest.mark.slow
def test_views_of_a_checkpoint(
    evaluate: RunMain, workdir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run was trained without flips, and ten crops include mirror images."""
    code, _, _ = evaluate("evaluation.views=ten_crops")
    assert (code, result_of(workdir)["views"]) == (0, "ten_crops")
    assert "augment.random_flip" in caplog.text
    assert "augment.random_crop" not in caplog.text
    code, _, _ = evaluate("evaluation.checkpoint=3", "evaluation.views=dense")
    result = result_of(workdir)
    assert (code, result["views"], result["scales"]) == (0, "dense", [24, 28, 32])
    assert (result["checkpoint"], result["count"]) == (3, 137)


@pytest.mark.parametrize("views", ["center", "ten_crops", "dense"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [False, True])
def test_views_that_training_did_not_include(
    views: str, flip: bool, crop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_untrained_views(views, Augmentation(4, random_crop=crop, random_flip=flip, scale=1.0))
    text = "".join(record.getMessage() for record in caplog.records)
    assert ("random_flip" in text) == (views != "center" and not flip)
    assert ("random_crop" in text) == (views != "center" and not crop)
    assert {record.levelno for record in caplog.records} <= {logging.WARNING}


def write_images(root: Path, images: dict[str, np.ndarray]) -> None:
    """Writes a folder source with one image a class in each split."""
    for split in ("train", "val"):
        for name, image in images.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            Image.fromarray(image).save(folder / "one.png")


def test_a_folders_split_has_the_folders_name(
    evaluate: RunMain, workdir: Path, tmp_path: Path, no_figures: None
) -> None:
    images, labels = digits.read_digits()
    root = tmp_path / "images"
    write_images(root, {str(label): images[labels == label][0][..., 0] for label in range(10)})
    code, output, _ = evaluate(
        "data.source=folder", f"data.root={root}", "data.eval_split=validation[:50%]"
    )
    assert code == 0
    (found,) = (workdir / "evaluation").iterdir()
    result = json.loads((found / "evaluation.json").read_text())
    assert (found.name, result["split"], result["count"]) == ("val_-50%_center", "val[:50%]", 5)
    assert read(found / "predictions.csv")[0]["example"].startswith(f"{root}/val/")
    assert "validation" not in output


def test_some_of_the_models_classes_without_a_training_split(
    evaluate: RunMain, workdir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The labels are the model's; its probabilities are over all classes."""
    images, labels = digits.read_digits()
    chosen = {label: images[labels == label][0] for label in (3, 7)}
    for label, image in chosen.items():
        folder = tmp_path / "images" / "val" / str(label)
        folder.mkdir(parents=True)
        Image.fromarray(image[..., 0]).save(folder / "one.png")
    caplog.set_level(logging.INFO)
    code, _, _ = evaluate(
        "data.source=folder", f"data.root={tmp_path}/images", "data.eval_split=val"
    )
    assert code == 0
    assert "2 of the model's 10 classes have images" in caplog.text
    (folder,) = (workdir / "evaluation").iterdir()
    rows = read(folder / "predictions.csv")
    assert [row["class"] for row in rows] == ["3", "7"]
    probabilities = alexnet_jax.load(workdir).probabilities(np.stack(list(chosen.values())))
    expected = [probabilities[0, 3], probabilities[1, 7]]
    found = [float(row["probability"]) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_other_classes_are_named(evaluate: RunMain, tmp_path: Path) -> None:
    names = [*map(str, range(9)), "cat"]
    write_images(tmp_path / "images", dict.fromkeys(names, np.zeros((28, 28), np.uint8)))
    code, _, errors = evaluate(
        "data.source=folder", f"data.root={tmp_path}/images", "data.eval_split=val"
    )
    assert code == 2
    assert "'9'" in errors
    assert "'cat'" in errors


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["evaluation.checkpoint=2"], "checkpoint 2"),
        (["data.image_size=40"], "data.image_size: 28 there, 40 here"),
        (["model.name=paper", "data.channels=3"], "model.name: 'digits' there, 'paper' here"),
        (["augment.mean=none", "augment.scale=2"], "augment.scale: 1.0 there, 2.0 here"),
        (["data.resize=warp"], "data.resize: 'crop' there, 'warp' here"),
        (["data.eval_split=vale"], "'vale'"),
        (["evaluation.views=ten"], "evaluation.views"),
        (["evaluation.views=dense", "evaluation.scales=(28, 20)"], "evaluation.scales"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    evaluate: RunMain, workdir: Path, overrides: list[str], key: str
) -> None:
    code, _, errors = evaluate(*overrides)
    assert code == 2
    assert errors.startswith("error: ")
    assert key in errors
    assert not (workdir / "evaluation.json").exists()


def test_a_workdir_without_a_run_is_refused(evaluate: RunMain, workdir: Path) -> None:
    (workdir / "checkpoints").rename(workdir / "gone")
    code, _, errors = evaluate()
    assert code == 2
    assert str(workdir) in errors


def test_a_file_where_the_report_should_be(evaluate: RunMain, workdir: Path) -> None:
    (workdir / "evaluation").write_text("a file")
    code, _, errors = evaluate()
    assert code == 2
    assert f"{workdir}/evaluation" in errors
    assert "Traceback" not in errors
