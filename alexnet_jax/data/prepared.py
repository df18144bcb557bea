"""Sets that job prepare wrote: opened at once, read at random."""

import json
import logging
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from ml_collections import ConfigDict

from alexnet_jax.data import example_records
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.folder import SPLIT_ALIASES
from alexnet_jax.data.images import decode_jpeg, resize_and_crop
from alexnet_jax.data.running_statistics import Statistics
from alexnet_jax.data.sources import Examples, RawExample
from alexnet_jax.errors import InputError

MANIFEST = "prepared.json"  # written last: with it, a set is whole
UNFINISHED = "unfinished"  # the folder that stands beside shards until then

_log = logging.getLogger(__name__)

# No reading ahead: the next example lies elsewhere.
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
    """The files of a split, each opened when it is first read."""

    paths: tuple[Path, ...]
    picture_shape: tuple[int, int, int] | None  # of raw pictures; None: array_record
    _opened: dict[int, Any] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __reduce__(self) -> tuple[Any, ...]:
        """Files are opened anew in another process."""
        return _Shards, (self.paths, self.picture_shape)

    def read(self, shard: int, places: np.ndarray) -> Any:
        """Returns n raw pictures, still on disk, or n records, at int[n] `places` of a shard.

        A record whose checksum does not fit comes out empty.
        """
        if shard not in self._opened:
            with self._lock:
                if shard not in self._opened:
                    self._opened[shard] = self._open(self.paths[shard])
        file = self._opened[shard]
        if self.picture_shape is not None:
            return [file[place] for place in places.tolist()]
        try:
            return file.read(places.tolist())
        except RuntimeError:  # one of them is damaged
            return [_read_one(file, place) for place in places.tolist()]

    def _open(self, path: Path) -> Any:
        if self.picture_shape is None:
            return ArrayRecordReader(
                str(path), options=_READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER
            )
        return np.memmap(path, np.uint8, "r").reshape(-1, *self.picture_shape)


def _read_one(file: Any, place: int) -> bytes:
    try:
        (record,) = file.read([place])
    except RuntimeError:
        return b""
    return bytes(record)


def _picture_of(record: bytes) -> bytes | memoryview:
    """Returns the picture in a record, nothing where it has none."""
    try:
        return example_records.image_of(record)
    except ValueError:
        return b""


@dataclass(frozen=True)
class PreparedSource:
    """One split of a prepared set.

    Attributes:
      root: folder of the set.
      split: the split's name.
      classes: ids and words of the classes.
      labels: int32[n].
      image_shape: (height, width, channels) of every picture handed out.
      stored_size: pixels a side of every picture as it is stored; None where they differ.
      ends: int64[shards], the examples in all shards up to and with each.
      shards: the files.
    """

    root: Path
    split: str
    classes: ClassTable
    labels: np.ndarray
    image_shape: tuple[int, int, int]
    stored_size: int | None
    ends: np.ndarray
    shards: _Shards

    @property
    def class_names(self) -> tuple[str, ...]:
        """The ids of the classes."""
        return self.classes.ids

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The words of the classes."""
        return self.classes.words

    def __len__(self) -> int:
        return len(self.labels)

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Reads the pictures at `indices`; a damaged one is empty."""
        labels = self.labels[indices].tolist()
        examples = [RawExample(b"", label) for label in labels]
        shards = np.searchsorted(self.ends, indices, side="right")
        starts = np.concatenate(([0], self.ends))[shards]
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            found = self.shards.read(shard, (indices - starts)[rows])
            pictures = found if self.shards.picture_shape else map(_picture_of, found)
            for row, picture in zip(rows.tolist(), pictures, strict=True):
                examples[row] = RawExample(picture, labels[row])
        return examples

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Decodes pictures; a damaged one gives readable False."""
        images = np.empty((len(stored), *self.image_shape), np.uint8)
        readable = np.array(
            [self._put(out, example.data) for out, example in zip(images, stored, strict=True)],
            bool,
        )
        images[~readable] = 0
        return Examples(images, np.array([example.label for example in stored], np.int32), readable)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the pictures at `indices`."""
        return self.decode(self.load(indices))

    def _put(self, out: np.ndarray, picture: Any) -> bool:
        """Writes a picture's file, or a raw picture, to `out`; tells whether it could."""
        size, _, channels = self.image_shape
        try:
            if self.shards.picture_shape is None:
                # Where the sizes agree, and so for most sets always, it is decoded into place.
                buffer = out if self.stored_size == size else None
                picture = decode_jpeg(picture, channels, buffer)
        except ValueError:
            return False
        if not np.may_share_memory(picture, out):
            out[...] = resize_and_crop(picture, size)
        return True

    def describe(self, index: int) -> str:
        """Names one example: the file it came from where the set says so, else its place."""
        name = f"{self.root} {self.split} example {index}"
        if self.shards.picture_shape is not None:
            return name
        shard = int(np.searchsorted(self.ends, index, side="right"))
        place = index - (int(self.ends[shard - 1]) if shard else 0)
        (record,) = self.shards.read(shard, np.array([place]))
        return example_records.decode(record).file_name if record else name

    def statistics(self) -> Statistics:
        """Returns the statistics of the split that were stored with the set.

        Raises:
          InputError: their file is missing or damaged.
        """
        path = statistics_file(self.root, self.split)
        try:
            return Statistics.load(path)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} cannot be read: the set was changed; prepare it again."
            ) from error


def open_split(data: ConfigDict, split: str) -> PreparedSource:
    """Opens a split of a prepared set; reads no picture.

    Args:
      data: the `data` part of the config; reads root, image_size and channels.
      split: a split of the set, or one of folder.SPLIT_ALIASES.

    Raises:
      InputError: there is no whole set in the root, it was changed, or has no such split.
    """
    if not data.root:
        raise InputError("data.source=prepared needs a folder: set --config.data.root=DIR.")
    root = Path(data.root).expanduser()
    manifest = read_manifest(root)
    recipe = manifest["recipe"]
    if recipe["channels"] != data.channels:
        raise InputError(
            f"The set in {root} was prepared with {recipe['channels']} channels, but data.channels "
            f"is {data.channels}."
        )
    name = _find_split(root, manifest["splits"], split)
    files = manifest["splits"][name]
    _refuse_changed(root, files)
    labels = _read_labels(root, name, sum(file["examples"] for file in files))
    if len(labels) and labels.min() < 0:
        raise InputError(f"The split {name!r} of {root} has no labels: choose another.")
    if recipe["size"] < data.image_size:
        _log.warning(
            "The pictures of %s are %d pixels wide and are enlarged to data.image_size, %d.",
            root,
            recipe["size"],
            data.image_size,
        )
    raw = recipe["format"] == "raw"
    return PreparedSource(
        root=root,
        split=name,
        classes=ClassTable(tuple(manifest["class_ids"]), tuple(manifest["class_labels"])),
        labels=labels,
        image_shape=(data.image_size, data.image_size, data.channels),
        stored_size=None if recipe["resize"] == "short_side" else recipe["size"],
        ends=np.cumsum([file["examples"] for file in files]),
        shards=_Shards(
            tuple(root / file["name"] for file in files),
            (recipe["size"], recipe["size"], recipe["channels"]) if raw else None,
        ),
    )


def read_manifest(root: Path) -> dict[str, Any]:
    """Returns the contents of prepared.json.

    Raises:
      InputError: the folder holds no whole set.
    """
    try:
        manifest: dict[str, Any] = json.loads((root / MANIFEST).read_text())
    except FileNotFoundError as error:
        if (root / UNFINISHED).is_dir():
            raise InputError(
                f"The set in {root} is half-written: run its job prepare again to the end."
            ) from error
        if not root.is_dir():
            raise InputError(f"There is no folder {root}: set --config.data.root=DIR.") from error
        raise InputError(
            f"{root} holds no prepared set ({MANIFEST} is missing): make one with "
            "--config.job=prepare."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{root / MANIFEST} cannot be read: {error}.") from error
    if not {"recipe", "splits", "class_ids", "class_labels"} <= set(manifest):
        raise InputError(f"{root / MANIFEST} is no description of a set: prepare it again.")
    return manifest


def _find_split(root: Path, splits: Mapping[str, Any], split: str) -> str:
    """Finds a split by its name, else by an alias."""
    for tier in ((split,), *SPLIT_ALIASES.get(split.lower(), ())):
        for name in tier:
            if name in splits:
                return name
    raise InputError(f"The set in {root} has no split {split!r}: it has {', '.join(splits)}.")


def _refuse_changed(root: Path, files: list[dict[str, Any]]) -> None:
    """Raises InputError if a shard is missing or has another size than it was written with."""
    for file in files:
        path = root / file["name"]
        size = path.stat().st_size if path.is_file() else None
        if size != file["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes instead of {file['bytes']}"
            raise InputError(f"{path} {found}: the set was changed; prepare it again.")


def _read_labels(root: Path, split: str, count: int) -> np.ndarray:
    path = labels_file(root, split)
    try:
        labels: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read: the set was changed; prepare it again."
        ) from error
    if len(labels) != count:
        raise InputError(
            f"{path} has {len(labels)} labels for {count} pictures: the set was changed; prepare "
            "it again."
        )
    return labels
