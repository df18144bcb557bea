"""Job profile_input: a rate for every stage, and what to change about the narrowest."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax.data.source import DataOptions, Subset, open_source
from alexnet_jax.jobs import profile_input

RunMain = Callable[..., tuple[int, str, str]]
STAGES = ["disk", "decoder", "pipeline", "copy", "step"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten classes of five pictures, one of them broken."""
    for number in range(50):
        path = tmp_path / "pictures" / f"n{number % 10}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (30 + number, 28), number).save(path)
    path.write_bytes(b"no picture")
    return tmp_path / "pictures"


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_every_stage_is_measured(
    run_main: RunMain,
    short_quickstart: tuple[str, ...],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
) -> None:
    monkeypatch.setattr(profile_input, "SECONDS_A_STAGE", 0.05)
    workdir = tmp_path / "run"
    code, out, errors = run_main(
        *short_quickstart,
        "--config.job=profile_input",
        f"--config.data.source={source}",
        f"--config.data.root={folder}",
        f"--workdir={workdir}",
    )
    assert (code, errors) == (0, "")
    found = json.loads((workdir / "profile_input.json").read_text())
    rates = found["images_per_second"]
    assert list(rates) == STAGES
    assert min(rates.values()) > 0
    assert found["narrowest"] == min(rates, key=rates.get)
    assert f"Narrowest: {found['narrowest']}. {found['advice']}" in out
    assert all(stage in out for stage in STAGES)
    if source == "digits":
        assert found["bytes_per_image"] == 28 * 28
    assert not (workdir / "config.json").exists()  # the folder is still free for a run


def test_loading_and_decoding_make_up_reading(folder: Path) -> None:
    data = DataOptions("folder", str(folder), holdout=0.2, image_size=28, channels=1)
    digits = DataOptions("digits", image_size=30, channels=1)
    sources = [open_source(data, "train"), open_source(data, "val"), open_source(digits, "val")]
    for source in (*sources, Subset(sources[0], np.arange(30)[::-1])):
        indices = np.array([2, 0, 5, 5])
        for found, wanted in zip(
            source.decode(source.read(indices)), source.load(indices), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)


def data_of(source: str, threads: int = 2, processes: int = 0) -> ConfigDict:
    return ConfigDict({"source": source, "threads": threads, "processes": processes})


@pytest.mark.parametrize(
    ("data", "rates", "words"),
    [
        (data_of("tfds"), (50, 50, 50, 50, 40), "Nothing to change"),
        (data_of("tfds"), (90, 30, 30, 50, 40), "Prepare the set once"),
        (data_of("folder"), (30, 90, 30, 50, 40), "The disk is the limit"),
        (data_of("prepared"), (30, 90, 30, 50, 40), "The disk is the limit"),
        (data_of("prepared"), (90, 90, 90, 20, 40), "The copy to the devices is the limit"),
        (data_of("prepared", 1), (90, 30, 30, 90, 40), "Set --config.data.threads=2"),
        (data_of("prepared"), (90, 90, 30, 90, 40), "--config.data.processes=2"),
        (data_of("prepared", 1, 2), (90, 90, 30, 90, 40), "Every core decodes"),
        (data_of("prepared"), (90, 31, 30, 90, 40), "as raw pictures (--config.prepare.format"),
    ],
)
def test_advice(data: ConfigDict, rates: tuple[float, ...], words: str) -> None:
    said = profile_input.advice(data, dict(zip(STAGES, rates, strict=True)), cores=2)
    assert words in said
