import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import alexnet_jax
from alexnet_jax.data import digits

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
    assert "1,000" in output
    assert f"{result['top1']:.2%}" in output


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("evaluation.checkpoint=latest", "evaluation.batch_size=41"),
        ("evaluation.checkpoint=4", "parallel.devices=2"),
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
    ],
)
def test_what_does_not_fit_the_run_is_told(
    evaluate: RunMain, workdir: Path, overrides: list[str], message: str
) -> None:
    code, _, errors = evaluate(*overrides)
    assert code == 2
    assert f"error: {message.format(workdir=workdir)}" in errors
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
