"""Job prepare through the program, from a folder to batches."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from alexnet_jax.data.pipeline import training_batches
from alexnet_jax.data.sources import open_source

RunMain = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for number in range(count):
            path = tmp_path / "pictures" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8)).save(path)
    return tmp_path / "pictures"


def words(pictures: Path, output: Path, *more: str) -> list[str]:
    return [
        f"--config={ROOT}/configs/quickstart.py",
        "--config.job=prepare",
        f"--config.prepare.root={pictures}",
        f"--config.prepare.output={output}",
        "--config.data.image_size=28",
        "--config.prepare.processes=1",
        *(f"--config.prepare.{text}" for text in more),
    ]


def test_a_folder_becomes_a_source(
    run_main: RunMain, pictures: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "set"
    (pictures / "train" / "a" / "broken.png").write_bytes(b"no picture")
    code, out, _ = run_main(*words(pictures, output, "max_unreadable=0.1"))
    assert code == 0
    assert "Unreadable pictures left out: 1, such as train/a/broken.png (not a" in caplog.text
    assert (
        f"{output}: 12 train, 6 val pictures of 2 classes. To train on them: "
        f"--config.data.source=prepared --config.data.root={output}\n"
    ) in out
    data = {"source": "prepared", "root": str(output), "image_size": 28, "channels": 1}
    source = open_source(ConfigDict(data), "train")
    with training_batches(source, seed=0, batch_size=4) as batches:
        batch, unreadable = next(batches)
    assert batch.images.shape == (4, 28, 28, 1)
    assert (batch.weights.sum(), unreadable) == (4, ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["max_unreadable=0"], "Unreadable pictures: 1, such as train/a/broken.png"),
        (["root=/none"], "There is no folder /none"),
        (["input=list"], "cannot be read"),
        (["input=ilsvrc"], "There is no "),
        (["splits=('train','tset')"], "has no folder for split 'tset'"),
        (["class_table=/none.txt"], "The class table /none.txt cannot be read"),
    ],
)
def test_mistakes(
    run_main: RunMain, pictures: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    (pictures / "train" / "a" / "broken.png").write_bytes(b"no picture")
    code, _, errors = run_main(*words(pictures, tmp_path / "set", *more))
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "set" / "prepared.json").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the sets of ../shared/data are not here")
def test_a_table_of_real_photographs(run_main: RunMain, tmp_path: Path) -> None:
    with zipfile.ZipFile(SHARED / "ccby_imagenet_like_1000.zip") as archive:
        names = archive.namelist()
        table = next(name for name in names if name.endswith("labels.csv"))
        top = table.removesuffix("labels.csv")
        rows = archive.read(table).decode().splitlines()[:21]
        for row in rows[1:]:
            archive.extract(top + row.split(",")[0], tmp_path)
        archive.extract(top + "synset_words.txt", tmp_path)
    (tmp_path / top / "some.csv").write_text("\n".join(rows))
    code, out, _ = run_main(
        f"--config={ROOT}/configs/paper.py",
        "--config.job=prepare",
        "--config.prepare.input=list",
        f"--config.prepare.root={tmp_path / top}",
        f"--config.prepare.output={tmp_path}/set",
        "--config.prepare.splits=('train=some.csv',)",
    )
    assert code == 0
    assert "20 train pictures of 1,000 classes" in out
    manifest = json.loads((tmp_path / "set" / "prepared.json").read_text())
    assert manifest["class_ids"][305] == "n02172182"
    assert manifest["class_words"][305] == "dung beetle"
