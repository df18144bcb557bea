"""Prepared sets, which job prepare writes: opened at once, read in any order."""

import json
import logging
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax.data import example_records, splits
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.images import decode_jpeg, resize_and_crop
from alexnet_jax.data.source import DataOptions, RawExample, Source
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError

MANIFEST = "prepared.json"  # written last: with it, a set is complete
UNFINISHED = "unfinished"  # the folder beside the shards until then

_log = logging.getLogger(__name__)

# No reading ahead: the next example is stored elsewhere.
_READER_OPTIONS = "readahead_buffer_size:0"
_READER_BUFFER = 1 << 15


def labels_file(root: Path, split: str) -> Path:
    """Returns the file of a split's labels, int32[n]."""
    return root / f"{split}.labels.npy"


def statistics_file(root: Path, split: str) -> Path:
    """Returns the file of a split's statistics."""
    return root / f"{split}.statistics.npz"


@dataclass
class _Shards:
    """The files of a split, each opened when it is first read.

    Attributes:
      paths: the files.
      ends: int64[shards], the examples in all shards up to and with each.
      raw_shape: (height, width, channels) of raw images; None: the shards are array_records.
    """

    paths: tuple[Path, ...]
    ends: np.ndarray
    raw_shape: tuple[int, int, int] | None
    _opened: dict[int, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        """Files are opened again in another process."""
        return _Shards, (self.paths, self.ends, self.raw_shape)

    def read(self, indices: np.ndarray) -> list[Any]:
        """Returns raw images, still on disk, or records, b"" for a damaged one."""
        found: list[Any] = [b""] * len(indices)
        shards = np.searchsorted(self.ends, indices, side="right")
        positions = indices - np.concatenate(([0], self.ends))[shards]
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            stored = self._read_shard(self._open(shard), positions[rows].tolist())
            for row, data in zip(rows.tolist(), stored, strict=True):
                found[row] = data
        return found

    def _open(self, shard: int) -> Any:
        if shard not in self._opened:
            with self._lock:
                if shard not in self._opened:
                    self._opened[shard] = self._open_file(self.paths[shard])
        return self._opened[shard]

    def _open_file(self, path: Path) -> Any:
        if self.raw_shape:
            return np.memmap(path, np.uint8, "r").reshape(-1, *self.raw_shape)
        return ArrayRecordReader(
            str(path), options=_READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER
        )

    def _read_shard(self, file: Any, positions: list[int]) -> Iterator[Any]:
        if self.raw_shape:
            yield from (file[position] for position in positions)
            return
        try:
            yield from file.read(positions)
        except RuntimeError:  # one of them does not match its checksum
            yield from (_read_one(file, position) for position in positions)


def _read_one(file: Any, position: int) -> bytes:
    try:
        return bytes(*file.read([position]))
    except RuntimeError:
        return b""


@dataclass(eq=False)
class PreparedSource(Source):
    """One split of a prepared set.

    Attributes:
      root: folder of the set.
      stored_size: pixels a side of every image as it is stored; None where they differ.
      shards: the files.
    """

    root: Path
    stored_size: int | None
    shards: _Shards

    def read(self, indices: np.ndarray) -> list[RawExample]:
        stored = self.shards.read(indices)
        if not self.shards.raw_shape:
            stored = [example_records.image_of(record) for record in stored]
        return [
            RawExample(data, label)
            for data, label in zip(stored, self.labels[indices].tolist(), strict=True)
        ]

    def decode_into(self, out: np.ndarray, data: Any) -> None:
        size, _, channels = self.image_shape
        if self.shards.raw_shape:
            out[...] = resize_and_crop(data, size)
        elif self.stored_size == size:  # as in most sets: decoded in place
            decode_jpeg(data, channels, out)
        else:
            out[...] = resize_and_crop(decode_jpeg(data, channels), size)

    def describe(self, index: int) -> str:
        if not self.shards.raw_shape:
            (record,) = self.shards.read(np.array([index]))
            if record:
                return example_records.decode(record).file_name
        return super().describe(index)

    def statistics(self) -> Statistics:
        path = statistics_file(self.root, self.split)
        try:
            return Statistics.load(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise _changed(path, "cannot be read") from error


def open_split(options: DataOptions, split: str) -> PreparedSource:
    """Opens a split of a prepared set; reads no image.

    Raises:
      InputError: there is no complete set in the root, it was changed, or has no such split.
    """
    root = options.folder
    manifest = read_manifest(root)
    made = manifest["image_format"]
    if made["channels"] != options.channels:
        raise InputError(
            f"The set in {root} was prepared with {made['channels']} channels, but data.channels "
            f"is {options.channels}."
        )
    if made["size"] < options.image_size:
        _log.warning(
            "The images of %s are %d pixels wide and are enlarged to data.image_size, %d.",
            root,
            made["size"],
            options.image_size,
        )
    name = splits.find(split, manifest["splits"])
    if name is None:
        raise InputError(
            f"The set in {root} has no split {split!r}: it has {', '.join(manifest['splits'])}."
        )
    files = manifest["splits"][name]
    ends = np.cumsum([file["examples"] for file in files])
    _refuse_changed(root, files)
    labels = _read_labels(labels_file(root, name), sum(file["examples"] for file in files))
    if len(labels) and labels.min() < 0:
        raise InputError(f"The split {name!r} of {root} has no labels: choose another.")
    side = made["size"]
    return PreparedSource(
        name=str(root),
        split=name,
        classes=ClassTable(tuple(manifest["class_ids"]), tuple(manifest["class_labels"])),
        image_shape=options.image_shape,
        labels=labels,
        root=root,
        stored_size=None if made["resize"] == "short_side" else side,
        shards=_Shards(
            tuple(root / file["name"] for file in files),
            ends,
            (side, side, made["channels"]) if made["format"] == "raw" else None,
        ),
    )


def read_manifest(root: Path) -> dict[str, Any]:
    """Returns the contents of prepared.json.

    Raises:
      InputError: the folder holds no complete set.
    """
    try:
        manifest: dict[str, Any] = json.loads((root / MANIFEST).read_text())
    except FileNotFoundError as error:
        if (root / UNFINISHED).is_dir():
            raise InputError(
                f"The set in {root} is incomplete: run its job prepare again to the end."
            ) from error
        if not root.is_dir():
            raise InputError(f"There is no folder {root}: set --config.data.root=DIR.") from error
        raise InputError(
            f"{root} holds no prepared set ({MANIFEST} is missing): make one with "
            "--config.job=prepare."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{root / MANIFEST} cannot be read: {error}.") from error
    if not {"image_format", "splits", "class_ids", "class_labels"} <= set(manifest):
        raise InputError(f"{root / MANIFEST} does not describe a set: prepare it again.")
    return manifest


def _refuse_changed(root: Path, files: Sequence[dict[str, Any]]) -> None:
    """Raises InputError if a shard is missing or has another size than it was written with."""
    for file in files:
        path = root / file["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != file["bytes"]:
            found = f"has {size} bytes instead of {file['bytes']}"
            raise _changed(path, "is missing" if size is None else found)


def _read_labels(path: Path, count: int) -> np.ndarray:
    try:
        labels: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise _changed(path, "cannot be read") from error
    if len(labels) != count:
        raise _changed(path, f"has {len(labels)} labels for {count} images")
    return labels


def _changed(path: Path, how: str) -> InputError:
    return InputError(f"{path} {how}: the set was changed; prepare it again.")
