"""Job prepare from the command line, from a folder to batches."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from options import data_options
from PIL import Image

import alexnet_jax
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import open_source
from alexnet_jax.errors import InputError

RunMain = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        for number in range(count):
            path = tmp_path / "images" / split / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8)).save(path)
    return tmp_path / "images"


def args(images: Path, output: Path, *more: str) -> list[str]:
    return [
        f"--config={ROOT}/configs/quickstart.py",
        "--config.job=prepare",
        f"--config.prepare.root={images}",
        f"--config.prepare.output={output}",
        "--config.data.image_size=28",
        "--config.prepare.processes=1",
        *(f"--config.prepare.{text}" for text in more),
    ]


def test_a_folder_becomes_a_source(
    run_main: RunMain, images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "my set"
    (images / "train" / "a" / "broken.png").write_bytes(b"not an image")
    (images / "synset_words.txt").write_text("a alpha\nb beta\n")
    code, out, _ = run_main(*args(images, output, "max_unreadable=0.1"))
    assert code == 0
    assert "train/a/broken.png" in caplog.text
    assert "12 train, 6 val images of 2 classes" in out
    assert f"--config.data.source=prepared --config.data.root='{output}'\n" in out
    data = data_options("prepared", output, image_size=28, channels=1)
    source = open_source(data, "train")
    assert source.classes.labels == ("alpha", "beta")
    batch, unreadable = TrainingBatches(source, 0, 4)[0]
    assert batch.images.shape == (4, 28, 28, 1)
    assert (batch.mask.sum(), unreadable) == (4, ())
    # A dataset can be prepared again, from another source
    again = args(output, tmp_path / "again", "input=prepared", "splits=('train=train[:50%]',)")
    assert run_main(*again)[0] == 0
    data = data_options("prepared", tmp_path / "again", image_size=28, channels=1)
    assert len(open_source(data, "train")) == 6
    assert open_source(data, "train").classes.labels == ("alpha", "beta")


def test_the_resize_stays_with_the_dataset(run_main: RunMain, images: Path, tmp_path: Path) -> None:
    warped = "--config.data.resize=warp"
    code, out, _ = run_main(*args(images, tmp_path / "set"), warped)
    assert code == 0
    assert f"{warped}\n" in out
    assert json.loads((tmp_path / "set" / "prepared.json").read_text())["resize"] == "warp"
    again = args(tmp_path / "set", tmp_path / "again", "input=prepared")
    code, _, errors = run_main(*again)
    assert code == 2
    assert warped in errors
    assert run_main(*again, warped)[0] == 0


@pytest.mark.slow
def test_labels_of_the_class_table_reach_the_trained_model(
    run_main: RunMain, tmp_path: Path, short_quickstart: tuple[str, ...]
) -> None:
    root, output, workdir = (tmp_path / name for name in ("images", "set", "run"))
    names = [f"n{number}" for number in range(10)]
    for number, name in enumerate(names * 4):
        (root / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (28, 28), number).save(root / name / f"{number}.png")
    (root / "synset_words.txt").write_text("".join(f"{name} label of {name}\n" for name in names))
    assert run_main(*args(root, output))[0] == 0
    train = [
        *short_quickstart,
        f"--workdir={workdir}",
        "--config.data.source=prepared",
        f"--config.data.root={output}",
        "--config.data.eval_split=val",
    ]
    assert run_main(*train)[0] == 0
    model = alexnet_jax.load(workdir)
    assert model.class_names == tuple(names)
    assert model.class_labels == tuple(f"label of {name}" for name in names)
    # The options of job prepare are no part of the run.
    code, out, _ = run_main(*train, "--config.prepare.output=elsewhere")
    assert (code, "4 of 4 steps" in out) == (0, True)


def tar_of(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return memory.getvalue()


def jpeg_of(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), (level, 255 - level, 7)).save(file, "JPEG", quality=95)
    return file.getvalue()


def test_official_tars_become_a_tfds_dataset(run_main: RunMain, tmp_path: Path) -> None:
    official, output = tmp_path / "official", tmp_path / "set"
    official.mkdir()
    wnids = ["n01440764", "n01443537", "n01484850"]
    inner = {
        f"{wnid}.tar": tar_of({f"{wnid}_{i}.JPEG": jpeg_of(60 * label + i) for i in range(4)})
        for label, wnid in enumerate(wnids)
    }
    val = {f"ILSVRC2012_val_{i:08d}.JPEG": jpeg_of(60 * (i % 3)) for i in range(1, 4)}
    (official / "ILSVRC2012_img_train.tar").write_bytes(tar_of(inner))
    (official / "ILSVRC2012_img_val.tar").write_bytes(tar_of(val))
    (official / "val.txt").write_text("".join(f"{name} {i % 3}\n" for i, name in enumerate(val, 1)))
    (official / "synset_words.txt").write_text("".join(f"{wnid} fish, any\n" for wnid in wnids))
    code, _, errors = run_main(*args(official, output, "input=ilsvrc"), "--config.data.channels=3")
    assert (code, errors) == (0, "")
    builder = tfds.builder_from_directory(str(output))
    assert builder.info.features["label"].names == wnids
    for split, count in (("train", 12), ("val", 3)):
        records = builder.as_data_source(split)
        assert len(records) == count
        for record in records:
            red = int(record["image"][..., 0].mean().round())
            assert abs(red - 60 * record["label"]) <= 5
            assert record["image"].shape == (28, 28, 3)
            if split == "train":
                assert wnids[record["label"]] in record["file_name"].decode()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["max_unreadable=0"], "train/a/broken.png"),
        (["root=/none"], "/none"),
        (["input=list"], "prepare.splits"),
        (["input=ilsvrc"], "ILSVRC2012_img_train.tar"),
        (["splits=('train','tset')"], "'tset'"),
        (["class_table=/none.txt"], "/none.txt"),
    ],
)
def test_errors(
    run_main: RunMain, images: Path, tmp_path: Path, more: list[str], message: str
) -> None:
    (images / "train" / "a" / "broken.png").write_bytes(b"not an image")
    code, _, errors = run_main(*args(images, tmp_path / "set", *more))
    assert code == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "set" / "prepared.json").exists()


@pytest.mark.parametrize(
    "pattern", ["train.labels*", "train.statistics*", "prepared.json", "*train.array*"]
)
def test_truncated_files_are_refused(
    run_main: RunMain, images: Path, tmp_path: Path, pattern: str
) -> None:
    output = tmp_path / "set"
    assert run_main(*args(images, output))[0] == 0
    path = next(output.glob(pattern))
    path.write_bytes(path.read_bytes()[:-100])
    data = data_options("prepared", output, image_size=28, channels=1)
    with pytest.raises(InputError, match=path.name):
        open_source(data, "train").statistics()


def test_one_class_is_prepared_with_a_warning_but_not_trained(
    run_main: RunMain,
    short_quickstart: tuple[str, ...],
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for split in ("train", "val"):
        shutil.rmtree(images / split / "b")
    assert run_main(*args(images, tmp_path / "set"))[0] == 0
    assert "only one class, 'a'" in caplog.text
    code, _, errors = run_main(
        *short_quickstart,
        f"--workdir={tmp_path / 'run'}",
        "--config.data.source=prepared",
        f"--config.data.root={tmp_path / 'set'}",
        "--config.data.eval_split=val",
    )
    assert (code, errors.count("\n")) == (2, 1)
    assert "data.train_split" in errors


@pytest.mark.parametrize(
    ("rows", "message"),
    [("0.png 0\n2.png 2\n", "line 2: the label '2'"), ("", "rows.txt")],
)
def test_wrong_labels_write_nothing(
    run_main: RunMain, images: Path, tmp_path: Path, rows: str, message: str
) -> None:
    root = images / "train" / "a"
    (root / "synset_words.txt").write_text("a alpha\nb beta\n")
    (root / "rows.txt").write_text(rows)
    code, _, errors = run_main(
        *args(root, tmp_path / "set", "input=list", "splits=('train=rows.txt',)")
    )
    assert code == 2
    assert message in errors
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the datasets of ../shared/data are not here")
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
    assert "20 train images of 1,000 classes" in out
    manifest = json.loads((tmp_path / "set" / "prepared.json").read_text())
    assert manifest["class_ids"][305] == "n02172182"
    assert manifest["class_labels"][305] == "dung beetle"
