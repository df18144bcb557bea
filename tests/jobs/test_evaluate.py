import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.data import digits
from alexnet_jax.reports.evaluation import folder_of
from alexnet_jax.runtime.workdir import Workdir

RunMain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def workdir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to evaluate."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def evaluate(
    run_main: RunMain, short_quickstart: tuple[str, ...], workdir: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs the job with overrides."""

    def run(*overrides: str) -> tuple[int, str, str]:
        words = (*short_quickstart, "--config.job=evaluate", f"--workdir={workdir}")
        return run_main(*words, *(f"--config.{override}" for override in overrides))

    return run


def test_the_whole_split_is_counted(evaluate: RunMain, workdir: Path) -> None:
    """Against the held-out digits pushed through the net here, in one batch, in float64."""
    code, output, _ = evaluate("data.eval_split=val")
    assert code == 0
    result = json.loads((workdir / "evaluation.json").read_text())

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


def test_the_report_agrees_with_itself(evaluate: RunMain, workdir: Path) -> None:
    """Every file counts the same 137 digits, and every wrong one is a mistake of some class."""
    code, output, _ = evaluate()
    assert code == 0
    folder = workdir / "evaluation" / "val_-137_center"
    assert (folder / "evaluation.json").read_text() == (workdir / "evaluation.json").read_text()
    result = json.loads((folder / "evaluation.json").read_text())
    said = read(folder / "predictions.csv")
    classes, confusion = read(folder / "classes.csv"), read(folder / "confusion.csv")
    right = [row for row in said if row["class_1"] == row["class"]]
    assert {row["rank"] for row in right} == {"1"}
    assert (result["count"], result["unreadable"]) == (len(said), 0) == (137, 0)
    assert [int(row["index"]) for row in said] == list(range(137))
    assert result["top1"] == pytest.approx(len(right) / 137)
    assert result["top5"] == pytest.approx(sum(int(row["rank"]) <= 5 for row in said) / 137)
    for label in range(10):
        mine = [row for row in said if row["label"] == str(label)]
        assert int(classes[label]["count"]) == len(mine)
        assert float(classes[label]["top1"]) == pytest.approx(
            sum(row in right for row in mine) / len(mine), abs=1e-4
        )
        for other in range(10):
            taken_for = sum(row["class_1"] == str(other) for row in mine)
            assert int(confusion[label][str(other)]) == taken_for
    assert sum(row["count"] for row in result["calibration"]) == 137
    assert 0 < result["expected_calibration_error"] < 1
    for name in ("classes", "confusion", "calibration", "worst_mistakes"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.width > 300
        assert f"{name}.png" in output


def test_views_are_compared_pair_by_pair(evaluate: RunMain, workdir: Path) -> None:
    """The first views are made to differ: four steps of training leave nothing to disagree on."""
    assert evaluate()[0] == 0
    file = workdir / "evaluation" / "val_-137_center" / "predictions.csv"
    rows = read(file)
    for row in rows[::7]:
        row["rank"] = "2" if row["rank"] == "1" else "1"
    with file.open("w", newline="") as written:
        writer = csv.DictWriter(written, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    code, output, _ = evaluate("evaluation.views=ten_crops")
    assert code == 0
    one, ten = (
        [row["rank"] == "1" for row in read(workdir / "evaluation" / name / "predictions.csv")]
        for name in ("val_-137_center", "val_-137_ten_crops")
    )
    result = json.loads((workdir / "evaluation.json").read_text())
    gained = sum(b and not a for a, b in zip(one, ten, strict=True))
    lost = sum(a and not b for a, b in zip(one, ten, strict=True))
    assert gained > 0
    assert lost > 0
    found = result["against"]["center"]
    assert result["views"] == "ten_crops"
    assert (found["gained"], found["lost"]) == (gained, lost)
    assert found["difference"] == pytest.approx((sum(ten) - sum(one)) / 137)
    assert "top-1 against center: " in output
    code, _, _ = evaluate("evaluation.checkpoint=3", "evaluation.views=dense")
    result = json.loads((workdir / "evaluation.json").read_text())
    assert (code, result["views"], result["scales"]) == (0, "dense", [24, 28, 32])
    assert result["against"] == {}  # those were of another checkpoint


def test_a_folders_split_has_the_folders_name(evaluate: RunMain, tmp_path: Path) -> None:
    images, labels = digits.read_digits()
    for split in ("train", "val"):
        for label in range(10):
            folder = tmp_path / "pictures" / split / str(label)
            folder.mkdir(parents=True)
            Image.fromarray(images[labels == label][0][..., 0]).save(folder / "one.png")
    code, output, _ = evaluate(
        "data.source=folder", f"data.root={tmp_path}/pictures", "data.eval_split=validation[:50%]"
    )
    assert code == 0
    (found,) = (tmp_path / "run" / "evaluation").iterdir()
    result = json.loads((found / "evaluation.json").read_text())
    assert (found.name, result["split"], result["count"]) == ("val_-50%_center", "val[:50%]", 5)
    assert read(found / "predictions.csv")[0]["example"].startswith(f"{tmp_path}/pictures/val/")
    assert "validation" not in output


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("evaluation.checkpoint=latest", "evaluation.batch_size=41"),
        ("parallel.strategy=data", "parallel.devices=2"),
        ("parallel.strategy=tower", "parallel.devices=2"),
    ],
)
def test_it_is_what_the_run_measured_itself(
    evaluate: RunMain, workdir: Path, overrides: tuple[str, ...]
) -> None:
    status = (workdir / "status.json").read_bytes()
    code, _, _ = evaluate(*overrides)
    assert code == 0
    result = json.loads((workdir / "evaluation.json").read_text())
    measured = json.loads(status)["last"]["val"]
    assert result["count"] == measured["count"] == 137
    assert result["loss"] == pytest.approx(measured["loss"], 1e-5)
    assert (result["top1"], result["top5"]) == (measured["top1"], measured["top5"])
    assert (workdir / "status.json").read_bytes() == status


def test_other_classes_are_refused(evaluate: RunMain, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            Image.new("L", (28, 28)).save(folder / "picture.png")
    code, _, errors = evaluate(
        "data.source=folder", f"data.root={tmp_path}/pictures", "data.eval_split=val"
    )
    assert code == 2
    assert "trained on other classes than those of the split 'val': 10 there, 2 here." in errors


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.checkpoint=2"], "There is no checkpoint '2' in "),
        (
            ["data.image_size=40"],
            "data.image_size is 40, but the run in {workdir} was trained with 28",
        ),
        (
            ["model.name=paper", "data.channels=3", "data.image_size=256"],
            "data.image_size is 256, but the run in {workdir} was trained with 28",
        ),
        (["data.eval_split=vale"], "The digits have no split 'vale'"),
        (
            ["evaluation.views=ten"],
            "evaluation.views: 'ten' is not one of 'center', 'ten_crops', 'dense'.",
        ),
        (
            ["evaluation.views=dense", "evaluation.scales=(28, 20)"],
            "evaluation.scales: 20 pixels are fewer than the 24 that the net digits takes.",
        ),
    ],
)
def test_what_does_not_fit_the_run_is_told(
    evaluate: RunMain, workdir: Path, overrides: list[str], message: str
) -> None:
    code, _, errors = evaluate(*overrides)
    assert code == 2
    assert errors.startswith("error: ")
    assert message.format(workdir=workdir) in errors
    assert not (workdir / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("gone", "message"),
    [("config.json", "holds no run"), ("checkpoints", "There is no checkpoint in ")],
)
def test_a_workdir_without_a_run_is_told(
    evaluate: RunMain, workdir: Path, gone: str, message: str
) -> None:
    (workdir / gone).rename(workdir / "gone")
    code, _, errors = evaluate()
    assert code == 2
    assert message in errors
    assert str(workdir) in errors


def test_reports_of_different_splits_and_scales_lie_apart(tmp_path: Path) -> None:
    about = [
        {"split": "train[:90%]", "views": "dense", "scales": (32, 48)},
        {"split": "train[90%:]", "views": "dense", "scales": (32, 48)},
        {"split": "train[:90%]", "views": "dense", "scales": (32, 40)},
        {"split": "train[:90%]", "views": "ten_crops"},
        {"split": "train[:90]", "views": "ten_crops"},
        {"split": "train", "views": "ten_crops"},
    ]
    folders = [folder_of(Workdir(tmp_path), one) for one in about]
    assert folders[0].name == "train_-90%_dense_32_48"
    assert len(set(folders)) == len(about)
