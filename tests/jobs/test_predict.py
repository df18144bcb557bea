"""Job predict on digits as files, against the model called here."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.data.digits import read_digits
from alexnet_jax.plots import style

RunMain = Callable[..., tuple[int, str, str]]
COUNT = 9


@pytest.fixture
def workdir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to predict with."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Digits as files whose names are no numbers of frames."""
    (tmp_path / "images").mkdir()
    for index, image in enumerate(read_digits()[0][::500][:COUNT]):
        Image.fromarray(image[..., 0]).save(tmp_path / "images" / f"{index}_digit.png")
    return tmp_path / "images"


@pytest.fixture
def predict(run_main: RunMain, workdir: Path, folder: Path) -> RunMain:
    """Runs the job on the folder's images with overrides."""

    def run(*overrides: str) -> tuple[int, str, str]:
        images = f"predict.images=('{folder}',)"
        args = ("--config.job=predict", f"--workdir={workdir}")
        return run_main(*args, *(f"--config.{override}" for override in (images, *overrides)))

    return run


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures out: they are slow."""
    monkeypatch.setattr(style, "save", lambda *_: None)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, (folder / "predictions.jsonl").read_text().splitlines()))


def assert_probabilities(lines: list[dict[str, Any]], expected: np.ndarray) -> None:
    for line, row in zip(lines, expected, strict=True):
        labels = [int(found["class"]) for found in line["classes"]]
        shares = [found["probability"] for found in line["classes"]]
        np.testing.assert_allclose(shares, -np.sort(-row)[: len(shares)], rtol=1e-4)
        np.testing.assert_allclose(shares, row[labels], rtol=1e-4)


def test_the_probabilities_are_the_models(predict: RunMain, workdir: Path, folder: Path) -> None:
    """Nine images in batches of four; of an image without a class, none is the correct one."""
    code, output, errors = predict("predict.batch_size=4", "predict.top=3")
    assert (code, errors) == (0, "")
    found = workdir / "predictions"
    expected = alexnet_jax.load(workdir).probabilities(read_digits()[0][::500][:COUNT])
    lines = lines_of(found)
    assert [line["image"] for line in lines] == [f"{folder}/{i}_digit.png" for i in range(COUNT)]
    assert {len(line["classes"]) for line in lines} == {3}
    assert_probabilities(lines, expected)
    with (found / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class_1"] for row in rows] == [line["classes"][0]["class"] for line in lines]
    assert sorted(path.name for path in found.iterdir()) == [
        *("predictions.csv", "predictions.jsonl", "predictions.png")
    ]
    with Image.open(found / "predictions.png") as image:
        assert image.width > 300
    assert "8_digit.png" in output


def test_one_image_and_another_folder(
    predict: RunMain, workdir: Path, folder: Path, tmp_path: Path, no_figures: None
) -> None:
    code, output, _ = predict(
        f"predict.images=('{folder}/3_*.png',)", f"predict.output={tmp_path}/a/b"
    )
    assert code == 0
    (line,) = lines_of(tmp_path / "a" / "b")
    assert all(f"{found['probability']:.1%}" in output for found in line["classes"])
    assert not (workdir / "predictions").exists()


def test_broken_files_are_named_and_the_rest_goes_on(
    predict: RunMain, workdir: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = (folder / "2_digit.png").read_bytes()
    (folder / "2_digit.png").write_bytes(content[: len(content) // 2])
    (folder / "4_digit.png").write_bytes(b"")
    code, output, errors = predict("predict.batch_size=4")
    assert code == 2
    assert all(name in errors and name in output for name in ("2_digit.png", "4_digit.png"))
    assert "3_digit.png" not in errors
    assert sum("2_digit.png" in record.getMessage() for record in caplog.records) == 1
    lines = lines_of(workdir / "predictions")
    assert ["error" in line for line in lines] == [index in (2, 4) for index in range(COUNT)]
    good = [index for index in range(COUNT) if index not in (2, 4)]
    expected = alexnet_jax.load(workdir).probabilities(read_digits()[0][::500][good])
    assert_probabilities([lines[index] for index in good], expected)


@pytest.mark.parametrize(("count", "others"), [(1, False), (2, True)])
def test_results_are_named_only_where_there_are_any(
    predict: RunMain,
    workdir: Path,
    folder: Path,
    no_figures: None,
    count: int,
    others: bool,
) -> None:
    (folder / "0_digit.png").write_bytes(b"")
    chosen = ", ".join(f"'{folder}/{index}_digit.png'" for index in range(count))
    code, _, errors = predict(f"predict.images=({chosen},)")
    assert code == 2
    assert "0_digit.png" in errors
    assert (str(workdir / "predictions") in errors) == others


@pytest.mark.parametrize(
    ("override", "drawn"),
    [("predict.frames=None", True), ("predict.frames=False", False), ("predict.top=1", True)],
)
def test_numbered_files_are_frames(
    predict: RunMain, workdir: Path, folder: Path, override: str, drawn: bool
) -> None:
    for path in folder.iterdir():
        path.rename(folder / f"frame{path.name[0]}.png")
    assert predict(override)[0] == 0
    assert (workdir / "predictions" / "frames.png").exists() == drawn
    top = 1 if "top" in override else 5
    assert {len(line["classes"]) for line in lines_of(workdir / "predictions")} == {top}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "tower"])
def test_any_strategy_gives_the_same(
    predict: RunMain, workdir: Path, no_figures: None, strategy: str
) -> None:
    assert predict(f"parallel.strategy={strategy}", "parallel.devices=2")[0] == 0
    expected = alexnet_jax.load(workdir).probabilities(read_digits()[0][::500][:COUNT])
    assert_probabilities(lines_of(workdir / "predictions"), expected)


@pytest.mark.slow
def test_ten_crops_are_averaged(
    predict: RunMain, workdir: Path, no_figures: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A crop at another place is the center crop of the shifted image."""
    assert predict("predict.views=ten_crops", "predict.top=10")[0] == 0
    assert "augment.random_flip" in caplog.text
    trained, images = alexnet_jax.load(workdir), read_digits()[0][::500][:COUNT]
    shifts = [(0, 0), *((down, right) for down in (-2, 2) for right in (-2, 2))]
    views = [np.roll(images, shift, (1, 2)) for shift in shifts]
    size = trained.augmentation.crop_size
    assert images.shape[1] - size == 4
    views += [view[:, :, ::-1] for view in views]
    mean = np.mean([trained.probabilities(view) for view in views], axis=0)
    assert_probabilities(lines_of(workdir / "predictions"), mean)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("predict.images=()", "images"),
        ("predict.images=('absent.jpg',)", "absent.jpg"),
        ("evaluation.checkpoint=77", "checkpoint 77"),
        ("predict.output={folder}/0_digit.png", "0_digit.png"),
        ("predict.views=dense", "predict.views"),
        ("evaluation.views=ten_crops", "evaluation.views"),
    ],
)
def test_what_cannot_be_predicted(
    predict: RunMain, workdir: Path, folder: Path, override: str, named: str
) -> None:
    code, _, errors = predict(override.replace("{folder}", str(folder)))
    assert code == 2
    assert errors.startswith("error: ")
    assert named in errors
    assert not (workdir / "predictions").exists()
