"""Job profile_input: a rate for every stage, and what to change about the slowest."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax.experiment import Experiment
from alexnet_jax.jobs import profile_input

RunMain = Callable[..., tuple[int, str, str]]
STAGES = ["disk", "decoder", "pipeline", "copy", "step"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten classes of five images, one of them unreadable."""
    for number in range(50):
        path = tmp_path / "images" / f"n{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30 + number, 28), number).save(path)
    path.write_bytes(b"not an image")
    return tmp_path / "images"


@pytest.mark.parametrize("source", [pytest.param("digits", marks=pytest.mark.slow), "folder"])
def test_every_stage_is_measured(
    run_main: RunMain,
    short_quickstart: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    monkeypatch.setattr(profile_input, "SECONDS_PER_STAGE", 0.02)
    if source == "folder":  # fast, without a compiled step
        monkeypatch.setattr(Experiment, "compile_train_step", lambda *_: lambda *state: state)
    workdir = tmp_path / "run"
    code, out, errors = run_main(
        *short_quickstart,
        "--config.job=profile_input",
        f"--config.data.source={source}",
        *([f"--config.data.root={folder}"] if source == "folder" else []),
        f"--workdir={workdir}",
    )
    assert (code, errors) == (0, "")
    found = json.loads((workdir / "profile_input.json").read_text())
    rates = found["images_per_second"]
    assert list(rates) == STAGES
    assert min(rates.values()) > 0
    assert found["slowest"] == min(rates, key=rates.get)
    assert found["advice"] in out
    assert all(stage in out for stage in STAGES)
    if source == "digits":
        assert found["bytes_per_image"] == 28 * 28
    assert not (workdir / "config.json").exists()  # the folder is still free for a run


def data_of(source: str, threads: int = 2, processes: int = 0) -> ConfigDict:
    return ConfigDict({"source": source, "threads": threads, "processes": processes})


@pytest.mark.parametrize(
    ("data", "rates", "key"),
    [
        (data_of("tfds"), (50, 50, 50, 50, 40), "Nothing"),
        (data_of("tfds"), (90, 30, 30, 50, 40), "config.job=prepare"),
        (data_of("parquet"), (90, 30, 30, 50, 40), "config.job=prepare"),
        (data_of("folder"), (30, 90, 30, 50, 40), "disk"),
        (data_of("prepared"), (30, 90, 30, 50, 40), "disk"),
        (data_of("prepared"), (90, 90, 90, 20, 40), "data.image_size"),
        (data_of("prepared", 1), (90, 30, 30, 90, 40), "data.threads=2"),
        (data_of("prepared"), (90, 90, 30, 90, 40), "data.processes=2"),
        (data_of("prepared", 1, 2), (90, 90, 30, 90, 40), "prepare.format=raw"),
        (data_of("prepared"), (90, 31, 30, 90, 40), "prepare.format=raw"),
    ],
)
def test_advice(data: ConfigDict, rates: tuple[float, ...], key: str) -> None:
    assert key in profile_input.advice(data, dict(zip(STAGES, rates, strict=True)), cores=2)
