"""Parquet files of images as Hugging Face `datasets` writes them."""

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from options import data_options
from PIL import Image

from alexnet_jax.data import parquet
from alexnet_jax.data.source import DataOptions, open_source, open_splits
from alexnet_jax.errors import InputError

NAMES = ["ape", "bee", "cat"]


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 6), level).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    images: list[Any],
    labels: list[Any],
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
) -> None:
    """Writes row groups of four, and with names the metadata of `datasets`."""
    table = pa.table(dict(zip(columns, (images, labels), strict=True)))
    if names:
        features = {columns[1]: {"names": names, "_type": "ClassLabel"}}
        info = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": info})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=4)


def structs(levels: range | list[int]) -> list[dict[str, Any]]:
    return [{"bytes": png(level), "path": None} for level in levels]


def options(root: Path, **changes: Any) -> DataOptions:
    return data_options("parquet", root, image_size=8, **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Image i of both splits has the level i and the label i % 3; 11 and 3 images."""
    data = tmp_path / "data"
    write(data / "train-00000-of-00002.parquet", structs(range(6)), [0, 1, 2] * 2, NAMES)
    write(data / "train-00001-of-00002.parquet", structs(range(6, 11)), [0, 1, 2, 0, 1], NAMES)
    write(data / "test-00000-of-00001.parquet", structs(range(3)), [0, 1, 2], NAMES)
    (tmp_path / "README.md").write_text("---\n")
    write(tmp_path / "__MACOSX/train-0.parquet", structs([0]), [0])
    os.mkfifo(tmp_path / "train-9.parquet")

    return tmp_path


@pytest.mark.parametrize("largest_cached", [0, 1 << 20])
def test_in_any_order(root: Path, monkeypatch: pytest.MonkeyPatch, largest_cached: int) -> None:
    monkeypatch.setattr(parquet, "_LARGEST_CACHED", largest_cached)
    train, held_out = open_splits(options(root))
    assert (len(train), len(held_out)) == (11, 3)
    assert train.class_names == held_out.class_names == tuple(NAMES)
    assert (train.split, held_out.split) == ("train", "test")
    assert train.image_shape == (8, 8, 3)
    np.testing.assert_array_equal(train.labels, np.arange(11) % 3)
    indices = np.array([10, 0, 7, 7, 4, 3])
    for source in (train, pickle.loads(pickle.dumps(train))):
        examples = source.load(indices)
        np.testing.assert_array_equal(examples.images[:, 0, 0, 0], indices)
        np.testing.assert_array_equal(examples.labels, indices % 3)
        assert examples.readable.all()
    part = open_source(options(root), "train[:50%]")
    assert set(part.load(np.arange(len(part))).labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("train-00000-of-00001", "validation-00000-of-00001"),
        ("train", "val"),
        ("data/train_0", "data/valid_0"),
        ("train/0000", "test/0000"),
        ("default/train/part-0", "default/val/part-0"),
    ],
)
def test_splits_by_file_or_folder(tmp_path: Path, train: str, val: str) -> None:
    write(tmp_path / f"{train}.parquet", structs([1, 2]), [0, 1])
    write(tmp_path / f"{val}.parquet", structs([3, 4, 5]), [0, 1, 1])
    assert [len(source) for source in open_splits(options(tmp_path))] == [2, 3]


def test_roots_of_any_name(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    odd = tmp_path_factory.mktemp("odd") / os.fsdecode(b"\xff [a-z]*? a:b %20 {x} label=1")
    shutil.copytree(root / "data", odd)
    train, held_out = open_splits(options(odd))
    assert train.load(np.arange(11)).readable.all()
    assert held_out.name.endswith(r"\xff [a-z]*? a:b %20 {x} label=1")


@pytest.mark.parametrize(
    ("images", "labels", "names", "ids", "expected"),
    [
        (structs([1, 2, 3]), ["dog", "ant", "dog"], None, ("ant", "dog"), [1, 0, 1]),
        (structs([1, 2, 3]), [2, 0, 1], None, ("0", "1", "2"), [2, 0, 1]),
        (structs([1, 2, 3]), [1, 0, 1], ["x", "y"], ("x", "y"), [1, 0, 1]),
        ([png(1), png(2), png(3)], [1, 0, 1], None, ("0", "1"), [1, 0, 1]),
        (
            [{"bytes": None, "path": f"images/{level}.png"} for level in (1, 2, 3)],
            pa.array(["b", "a", "b"]).dictionary_encode(),
            None,
            ("a", "b"),
            [1, 0, 1],
        ),
    ],
    ids=["names", "indices", "named indices", "bytes", "paths"],
)
def test_forms_of_images_and_labels(
    tmp_path: Path, images: list, labels: Any, names: Any, ids: tuple, expected: list
) -> None:
    (tmp_path / "images").mkdir()
    for level in (1, 2, 3):
        (tmp_path / f"images/{level}.png").write_bytes(png(level))
    write(tmp_path / "train.parquet", images, labels, names, columns=("img", "fine_label"))
    source = open_source(options(tmp_path), "train")
    examples = source.load(np.arange(3))
    assert source.class_names == ids
    np.testing.assert_array_equal(examples.labels, expected)
    np.testing.assert_array_equal(examples.images[:, 0, 0, 0], [1, 2, 3])


def test_unreadable_images(root: Path) -> None:
    """Missing, not an image, and in a damaged row group, whose other images are lost with it."""
    images = [*structs(range(7)), {"bytes": b"broken", "path": "a.png"}]
    images[1] = {"bytes": None, "path": None}
    path = root / "data/train-00000-of-00002.parquet"
    write(path, images, [0, 1, 2, 0, 1, 2, 0, 1], NAMES)
    source = open_source(options(root), "train")
    readable = [True, False, True, True, True, True, True, False]
    np.testing.assert_array_equal(source.load(np.arange(8)).readable, readable)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    parquet._read_column.cache_clear()
    source = open_source(options(root), "train")
    readable[4:7] = 3 * [False]
    np.testing.assert_array_equal(source.load(np.arange(8)).readable, readable)


def damage_labels(train: Path) -> None:
    """Overwrites the start of the column of labels."""
    column = pq.read_metadata(train).row_group(0).column(2)  # after the two of images
    start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(train.read_bytes())
    data[start : start + 30] = bytes(30)
    train.write_bytes(data)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        (damage_labels, r"train\.parquet"),
        (lambda train: train.write_bytes(b"PAR1 no more"), r"train\.parquet"),
        (lambda train: train.write_bytes(train.read_bytes()[:-20]), r"train\.parquet"),
        (lambda train: write(train, structs([1]), [0], columns=("photo", "label")), "photo"),
        (lambda train: write(train, structs([1]), [0], columns=("image", "breed")), "breed"),
        (lambda train: write(train, structs([1, 2]), [0, None]), "None"),
        (lambda train: write(train, structs([1, 2]), [-1, -1]), "-1"),
        (lambda train: write(train, structs([1, 2]), [[0], [1]]), r"\[0\]"),
        (lambda train: write(train, structs([1, 2]), [{"x": 0}, {"x": 1}]), "'x'"),
        (lambda train: write(train, structs([1, 2]), [0.5, 1.5]), r"\.5"),
        (lambda train: write(train, structs([1, 2]), [0, 7], NAMES), "7"),
        (lambda train: train.unlink(), "train"),
        (lambda train: write(train.parent / "b/train.parquet", structs([1]), [0]), "data.root"),
    ],
)
def test_refusals(tmp_path: Path, how: Callable[[Path], object], match: str) -> None:
    train = tmp_path / "train.parquet"
    write(train, structs([1, 2]), [0, 1])
    how(train)
    parquet._metadata.cache_clear()
    with pytest.raises(InputError, match=match) as caught:
        open_source(options(tmp_path), "train")
    assert "\n" not in str(caught.value)


def test_labels_of_evaluation_are_classes_of_training(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", structs([1, 2]), ["a", "b"])
    write(tmp_path / "val.parquet", structs([1, 2]), ["b", "zebra"])
    with pytest.raises(InputError, match="zebra"):
        open_source(options(tmp_path), "val")
