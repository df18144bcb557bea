"""Prepared datasets, as job prepare writes them: fast to open, read in any order."""

import bisect
import functools
import itertools
import json
import logging
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from alexnet_jax.data import classes, example_records, images, listing, splits
from alexnet_jax.data.source import DataOptions, Source
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError

MANIFEST = "prepared.json"  # written last: with it, a dataset is complete
UNFINISHED = "unfinished"  # the folder next to the shards until then

_log = logging.getLogger(__name__)

# No reading ahead: the next example is stored elsewhere.
_READER_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 1 << 15}


def labels_file(root: Path, split: str) -> Path:
    """Returns the file of a split's labels, int32[n]."""
    return root / f"{split}.labels.npy"


def statistics_file(root: Path, split: str) -> Path:
    """Returns the file of a split's statistics."""
    return root / f"{split}.statistics.npz"


@functools.cache
def _open_shard(path: Path, raw_shape: tuple[int, int, int] | None) -> Any:
    """Opens a shard once in each process: an array of raw images on disk, or a record reader."""
    if raw_shape:
        # As a plain array, whose parts are views at a fraction of the cost of a memmap's.
        return np.asarray(np.memmap(path, np.uint8, "r")).reshape(-1, *raw_shape)
    return ArrayRecordReader(os.fsencode(path), **_READER_OPTIONS)


@dataclass(eq=False)
class PreparedSource(Source):
    """One split of a prepared dataset.

    Attributes:
      root: folder of the dataset.
      stored_size: pixels a side of every image as it is stored; None where they differ.
      raw_shape: (height, width, channels) of raw images; None: the shards are array_records.
      shards: the files.
      starts: the number of examples in all shards before each, and in all.
    """

    root: Path
    stored_size: int | None
    raw_shape: tuple[int, int, int] | None
    shards: list[Path]
    starts: list[int]

    def read_one(self, index: int) -> Any:
        return self._record(index).image

    def _record(self, index: int) -> example_records.Record:
        """Returns a record, without an image where it is damaged; a raw image is still on disk."""
        number = bisect.bisect_right(self.starts, index) - 1
        position = index - self.starts[number]
        shard = _open_shard(self.shards[number], self.raw_shape)
        if self.raw_shape:
            return example_records.Record("", shard[position], -1)
        try:
            return example_records.decode(*shard.read([position]))
        except (RuntimeError, ValueError):  # it does not match its checksum
            return example_records.Record("", b"", -1)

    def decode_into(self, out: np.ndarray, data: Any) -> None:
        size, _, channels = self.image_shape
        if self.stored_size == size and not self.raw_shape:  # as in most datasets: in place
            images.decode_jpeg(data, channels, out)
        else:
            super().decode_into(out, data if self.raw_shape else images.decode_jpeg(data, channels))

    def describe(self, index: int) -> str:
        return self._record(index).file_name or super().describe(index)

    def statistics(self) -> Statistics:
        return _load(statistics_file(self.root, self.split), Statistics.load)


def open_split(options: DataOptions, split: str) -> PreparedSource:
    """Opens a split of a prepared dataset; reads no image.

    Raises:
      InputError: there is no complete dataset in the root, it was changed, or has no such split.
    """
    root = options.folder
    manifest = read_manifest(root)
    if manifest["channels"] != options.channels:
        raise InputError(
            f"The dataset in {root} was prepared with {manifest['channels']} channels, but "
            f"data.channels is {options.channels}."
        )
    if (resize := images.later_resize(manifest["resize"])) != options.resize:
        raise InputError(
            f"The dataset in {root} was prepared with prepare.resize={manifest['resize']!r}, but "
            f"data.resize is {options.resize!r}: set --config.data.resize={resize}, or prepare it "
            "again."
        )
    side = manifest["size"]
    if side < options.image_size:
        message = "The images of %s are %d pixels wide and are enlarged to data.image_size, %d."
        _log.warning(message, root, side, options.image_size)
    name = splits.choose(split, manifest["splits"], f"The dataset in {root}")
    files = manifest["splits"][name]
    starts = [0, *itertools.accumulate(file["examples"] for file in files)]
    for file in files:
        path = root / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise _changed(path, f"is missing or does not have {file['bytes']} bytes")
    path = labels_file(root, name)
    labels = _load(path, np.load)
    if len(labels) != starts[-1]:
        raise _changed(path, f"has {len(labels)} labels for {starts[-1]} images")
    if len(labels) and labels.min() < 0:
        raise InputError(f"The split {name!r} of {root} has no labels: choose another.")
    table = classes.ClassTable(tuple(manifest["class_ids"]), tuple(manifest["class_labels"]))
    fields = (listing.printable(str(root)), name, table, options.image_shape, labels)
    stored_size = None if manifest["resize"] == "short_side" else side
    raw_shape = (side, side, options.channels) if manifest["format"] == "raw" else None
    shards = [root / file["name"] for file in files]
    return PreparedSource(*fields, root, stored_size, raw_shape, shards, starts)


def read_manifest(root: Path) -> dict[str, Any]:
    """Returns the contents of prepared.json.

    Raises:
      InputError: the folder holds no complete dataset.
    """
    path = root / MANIFEST
    if not path.is_file():
        unfinished = (root / UNFINISHED).is_dir()
        found = "an incomplete dataset: finish it" if unfinished else "no dataset: prepare one"
        raise InputError(f"{root} holds {found} with --config.job=prepare.")
    manifest: dict[str, Any] = _load(path, lambda path: json.loads(path.read_text()))
    if not {"size", "splits", "class_ids", "class_labels"} <= set(manifest):
        raise _changed(path, "does not describe a dataset")
    return manifest


def _load(path: Path, load: Callable[[Path], Any]) -> Any:
    """Returns what `load` reads from a file of the dataset.

    Raises:
      InputError: the file is missing or damaged.
    """
    try:
        return load(path)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise _changed(path, "cannot be read") from error


def _changed(path: Path, how: str) -> InputError:
    return InputError(f"{path} {how}: the dataset was changed; prepare it again.")
