"""Files of features: every format holds all rows, whatever the batches."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from alexnet_jax.evaluation.feature_files import FEATURE_FORMATS, replace_files

ROWS = 301
RNG = np.random.default_rng(0)
ARRAYS = {
    "pool5": RNG.normal(size=(ROWS, 3, 2, 4)).astype(np.float32),
    "fc7": RNG.normal(size=(ROWS, 17)).astype(np.float32),
    "labels": np.arange(ROWS, dtype=np.int32),
}
NAMES = [f"folder/{'long' * (index % 7)} {index} ü.jpg" for index in range(ROWS)]


def write(folder: Path, kind: str, batch: int) -> None:
    writer = FEATURE_FORMATS[kind](folder)
    for start in range(0, ROWS, batch):
        rows = slice(start, start + batch)
        writer.append(NAMES[rows], {name: array[rows] for name, array in ARRAYS.items()})
    writer.close()


def read(folder: Path, kind: str) -> dict[str, Any]:
    """Reads the files as their users do."""
    if kind == "npy":
        arrays = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        return {**arrays, "names": (folder / "names.txt").read_text("utf-8").splitlines()}
    if kind == "npz":
        with np.load(folder / "features.npz") as archive:
            return {**archive, "names": archive["names"].tolist()}
    table = parquet.read_table(folder / "features.parquet")
    found = {"names": table["names"].to_pylist(), "labels": table["labels"].to_numpy()}
    for name in ("pool5", "fc7"):
        shape = table.schema.field(name).metadata[b"shape"].decode().split(",")
        flat = table[name].combine_chunks().flatten().to_numpy()
        found[name] = flat.reshape(-1, *map(int, shape))
    return found


@pytest.mark.parametrize("kind", FEATURE_FORMATS)
@pytest.mark.parametrize("batch", [64, ROWS])
def test_all_rows_come_back(tmp_path: Path, kind: str, batch: int) -> None:
    write(tmp_path, kind, batch)
    found = read(tmp_path, kind)
    assert set(found) == {*ARRAYS, "names"}
    assert list(found["names"]) == NAMES
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    expected = {"npy": {"names.txt", *(f"{name}.npy" for name in ARRAYS)}}
    files = {path.name for path in tmp_path.iterdir()}
    assert files == expected.get(kind, {f"features.{kind}"})


@pytest.mark.parametrize("kind", FEATURE_FORMATS)
def test_no_image_could_be_read(tmp_path: Path, kind: str) -> None:
    writer = FEATURE_FORMATS[kind](tmp_path)
    writer.append([], {name: array[:0] for name, array in ARRAYS.items()})
    writer.close()
    found = read(tmp_path, kind)
    assert list(found["names"]) == []
    assert found["pool5"].shape == (0, 3, 2, 4)


def test_names_and_labels_without_arrays_are_a_users_own(tmp_path: Path) -> None:
    partial = tmp_path / ".partial"
    partial.mkdir()
    (partial / "features.npz").write_bytes(b"new")
    for name in ("names.txt", "labels.npy", "features.npz"):
        (tmp_path / name).write_bytes(b"old")
    assert replace_files(partial, tmp_path, ["fc7"]) == ["features.npz"]
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert found == {"names.txt": b"old", "labels.npy": b"old", "features.npz": b"new"}


@pytest.mark.parametrize("kind", FEATURE_FORMATS)
def test_memory_is_constant(tmp_path: Path, kind: str) -> None:
    """Forty batches of 2 MB need no more memory than a few of them."""
    batch = {"fc7": np.zeros((128, 4096), np.float32)}
    writer = FEATURE_FORMATS[kind](tmp_path)
    writer.append(["x"] * 128, batch)
    tracemalloc.start()
    for _ in range(40):
        writer.append(["x"] * 128, batch)
    writer.close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size > 41 * 2e6
