"""Parquet files of images, as Hugging Face `datasets` writes them.

Parquet is read by whole row groups, often of 100 images, so that random access reads far more than
it needs: prepare datasets of large images once with job prepare.
"""

import contextlib
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alexnet_jax.data import classes, listing, splits
from alexnet_jax.data.source import DataOptions, RawExample, Source
from alexnet_jax.errors import InputError

_LARGEST_CACHED = 1 << 20  # bytes of a row group


@dataclass(eq=False)
class ParquetSource(Source):
    """One split of a dataset in Parquet files.

    Attributes:
      root: the folder that image paths are relative to, in a dataset without the images' bytes.
      column: the name of the image column.
      groups: the file of each row group and its index there.
      starts: int64[groups + 1], the examples in all row groups before each, and in all.
    """

    root: Path
    column: str
    groups: list[tuple[str, int]]
    starts: np.ndarray

    def read(self, indices: np.ndarray) -> list[RawExample]:
        data = np.empty(len(indices), object)
        groups = np.searchsorted(self.starts, indices, side="right") - 1
        for group in np.unique(groups).tolist():  # only one is held in memory
            rows = np.flatnonzero(groups == group)
            data[rows] = [self._contents(value) for value in self._read_group(group, indices[rows])]
        return list(map(RawExample, data, self.labels[indices].tolist()))

    def _read_group(self, group: int, indices: np.ndarray) -> Any:
        path, number = self.groups[group]
        try:
            small = _metadata(path).row_group(number).total_byte_size <= _LARGEST_CACHED
            read = _read_column if small else _read_column.__wrapped__
            return read(path, number, self.column).take(indices - self.starts[group]).to_pylist()
        except InputError:
            return [None] * len(indices)

    def _contents(self, value: Any) -> bytes:
        """Returns the bytes of an image file, empty where they are damaged or missing."""
        if isinstance(value, dict):
            data, path = value.get("bytes"), value.get("path")
            value = data if data or not path else listing.contents(self.root / path)
        return value or b""


@contextlib.contextmanager
def _open(path: str) -> Iterator[BinaryIO]:
    """Opens a file, whose damage is an InputError inside the context."""
    try:
        with open(path, "rb") as file:  # Arrow itself opens only paths that are UTF-8
            yield file
    except (pa.ArrowException, OSError) as error:
        what = f"{listing.printable(path)} is damaged or not a Parquet file"
        raise InputError(f"{what} ({' '.join(str(error).split())}).") from error


@functools.lru_cache(maxsize=128)
def _read_column(path: str, group: int, column: str) -> pa.ChunkedArray:
    with _open(path) as file:
        parquet = pq.ParquetFile(file, metadata=_metadata(path))
        return parquet.read_row_group(group, columns=[column], use_threads=False).column(0)


@functools.cache
def _metadata(path: str) -> pq.FileMetaData:
    with _open(path) as file:
        return pq.read_metadata(file)


def _row_groups(paths: list[str]) -> list[tuple[str, int]]:
    """Returns the file of each row group and its index there."""
    return [(path, number) for path in paths for number in range(_metadata(path).num_row_groups)]


def open_split(options: DataOptions, split: str) -> ParquetSource:
    """Opens a split: `train-*.parquet`, `data/train-*.parquet` or `train/*.parquet`.

    An image is a struct of `bytes` and `path`, or the bytes of a file. Labels are class indices or
    class names; the names of indices are those of `datasets`' ClassLabel, otherwise the numbers.

    Raises:
      InputError: there is no such split, a file is damaged, or a column is missing.
    """
    root = options.folder
    train = _find_files(root, splits.parse(options.train_split)[0])
    files = _find_files(root, split)
    image = _find_column(train + files, ("image", "img"))
    label = _find_column(train + files, ("label", "labels", "fine_label"))
    ids = _class_ids(train, label)
    labels = _to_indices(_read_labels(files, label), ids, f"The split {split!r} of {root}")
    table = classes.from_ids(ids).with_labels_of(classes.find(root))
    name, split = listing.printable(str(root)), _split_of(Path(files[0]))
    groups = _row_groups(files)
    starts = np.cumsum([0, *(_metadata(path).row_group(n).num_rows for path, n in groups)])
    fields = (name, split, table, options.image_shape, labels)
    return ParquetSource(*fields, root, image, groups, starts)


def _find_files(root: Path, split: str) -> list[str]:
    """Returns the files of a split in the order of their names."""
    files: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        # Only regular files: a FIFO would block.
        if path.is_file() and not any(map(listing.is_side_name, path.relative_to(root).parts)):
            files.setdefault(_split_of(path), []).append(path)
    layouts = f"{root}/train-*.parquet, {root}/data/train-*.parquet or {root}/train/*.parquet"
    name = splits.choose(split, files, f"The Parquet dataset {root}", f"expected {layouts}")
    if len({path.parent for path in files[name]}) > 1:
        raise InputError(
            f"The split {split!r} of {root} has files in several folders, such as "
            f"{files[name][-1]}: set --config.data.root to the folder of one dataset."
        )
    return [str(path) for path in files[name]]


def _split_of(path: Path) -> str:
    """Returns the split that a file belongs to: by its name, otherwise by its folder's."""
    name = re.sub(r"([-_]\d+(-of-\d+)?)+$", "", path.stem)
    in_folder = splits.kind_of(path.parent.name) or name.isdigit()
    return path.parent.name if in_folder and not splits.kind_of(name) else name


def _find_column(paths: list[str], names: tuple[str, ...]) -> str:
    """Returns the first of the columns, which all files must have."""
    columns = [_metadata(path).schema.to_arrow_schema().names for path in paths]
    if shared := [name for name in names if all(name in found for found in columns)]:
        return shared[0]
    raise InputError(
        f"{paths[0]} has the columns {', '.join(columns[0])}, but not {' or '.join(names)}: rename "
        "the columns of images and labels to 'image' and 'label'."
    )


def _read_labels(paths: list[str], column: str) -> list[Any]:
    parts = [_read_column.__wrapped__(*group, column) for group in _row_groups(paths)]
    return [label for part in parts for label in part.to_pylist()]


def _class_ids(paths: list[str], column: str) -> tuple[str, ...]:
    """Returns the names of the classes in the order of their indices."""
    metadata = _metadata(paths[0]).metadata or {}
    with contextlib.suppress(ValueError, LookupError, TypeError):
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    labels = _read_labels(paths, column)
    if all(isinstance(label, int) for label in labels):
        return tuple(map(str, range(max(labels, default=-1) + 1)))
    return tuple(sorted({label for label in labels if isinstance(label, str)}))


def _to_indices(labels: list[Any], ids: tuple[str, ...], where: str) -> np.ndarray:
    """Returns class indices int32[n]."""
    known = {key: index for index, name in enumerate(ids) for key in (name, index)}
    if odd := [label for label in labels if isinstance(label, list | dict) or label not in known]:
        raise InputError(f"{where} has the label {odd[0]!r}, which is not one of its classes.")
    if not labels:
        raise InputError(f"{where} has no images.")
    return np.array([known[label] for label in labels], np.int32)
