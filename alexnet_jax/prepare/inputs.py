"""Labeled pictures of any layout in one common form, to be prepared."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ml_collections import ConfigDict

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.source import DataOptions, open_source
from alexnet_jax.errors import InputError

UNLABELED = -1


class Picture(Protocol):
    """One labeled picture that has not been read yet."""

    @property
    def name(self) -> str:
        """What reports call it: its path below the root."""
        ...

    @property
    def path(self) -> str:
        """The file it lies in."""
        ...

    def read(self) -> tuple[bytes, int]:
        """Returns the bytes of its file and its class index, UNLABELED where it has none."""
        ...


class FilePart(NamedTuple):
    """A picture that is a file, or a part of one.

    Attributes:
      name: its path below the root.
      label: class index, or UNLABELED.
      path: the file.
      offset: where in the file it starts.
      size: bytes; None: all of the file.
    """

    name: str
    label: int
    path: str
    offset: int = 0
    size: int | None = None

    def read(self) -> tuple[bytes, int]:
        """Returns the bytes and the class index."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.size), self.label


class TfdsRecord(NamedTuple):
    """A picture of a set that TensorFlow Datasets prepared.

    Attributes:
      name: split and number.
      path: a file of the set that changes whenever the set does.
      data: what opens the set.
      split: the split in TFDS's notation.
      place: in the split.
    """

    name: str
    path: str
    data: DataOptions
    split: str
    place: int

    def read(self) -> tuple[bytes, int]:
        """Returns the bytes and the class index."""
        try:
            record = _records(self.data, self.split)[self.place]
        except RuntimeError as error:  # array_record's, of a checksum that does not fit
            raise UnreadableImage(str(error)) from error
        return record["image"], int(record["label"])


class Inputs(NamedTuple):
    """All that is to be prepared.

    Attributes:
      classes: of every split.
      splits: the pictures of each split, in a fixed order.
    """

    classes: ClassTable
    splits: Mapping[str, Sequence[Picture]]


# A function open_inputs(config) -> Inputs each.
_MODULES = {
    "list": "alexnet_jax.prepare.lists",
    "pattern": "alexnet_jax.prepare.name_pattern",
    "ilsvrc": "alexnet_jax.prepare.ilsvrc",
}


def open_inputs(config: ConfigDict) -> Inputs:
    """Lists the pictures that the config's `prepare` part names, reading none.

    Raises:
      InputError: they are missing or malformed, or a split has no picture.
    """
    kind = config.prepare.input
    if kind in _MODULES:
        inputs = import_module(_MODULES[kind]).open_inputs(config)
    else:
        inputs = {"folder": _open_folder, "tfds": _open_tfds}[kind](config)
    for split, pictures in inputs.splits.items():
        if not len(pictures):
            raise InputError(f"The split {split!r} of {config.prepare.root} has no pictures.")
    return inputs


def root_of(config: ConfigDict) -> Path:
    """Returns the folder that the inputs lie in.

    Raises:
      InputError: there is no such folder.
    """
    root = Path(config.prepare.root).expanduser()
    if not root.is_dir():
        raise InputError(f"There is no folder {root}: set --config.prepare.root=DIR.")
    return root


def places(config: ConfigDict) -> dict[str, str]:
    """Returns {split: place} of `prepare.splits`, texts 'NAME' or 'NAME=PLACE'."""
    pairs = (text.partition("=") for text in config.prepare.splits)
    return {name: place or name for name, _, place in pairs}


def fingerprint(inputs: Inputs) -> str:
    """Tells whether inputs are the same as once before: a digest of names, sizes and times.

    No picture is read; a file that is missing has a state too.
    """
    _state.cache_clear()
    digest = hashlib.sha256(repr(inputs.classes).encode())
    for split, pictures in inputs.splits.items():
        digest.update(f"{split} {len(pictures)}".encode())
        for picture in pictures:
            text = f"{picture!r}{_state(picture.path)}"
            digest.update(text.encode(errors="surrogateescape"))
    return digest.hexdigest()


@lru_cache(maxsize=8)  # the pictures of a tar have one path
def _state(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError as error:
        return str(error.errno)
    return f"{status.st_size} {status.st_mtime_ns}"


def _open_folder(config: ConfigDict) -> Inputs:
    root, wanted = root_of(config), places(config)
    data = DataOptions(
        source="folder",
        root=str(root),
        train_split=next(iter(wanted.values())),
        holdout=config.data.holdout,
    )
    names: tuple[str, ...] = ()
    splits = {}
    for split, place in wanted.items():
        source = open_source(data, place)
        names = source.class_names
        paths = [source.describe(index) for index in range(len(source))]
        splits[split] = [
            FilePart(os.path.relpath(path, root), int(label), path)
            for path, label in zip(paths, source.labels, strict=True)
        ]
    table = classes.find(root, config.prepare.class_table)
    return Inputs(classes.from_ids(names).with_labels_of(table), splits)


def _open_tfds(config: ConfigDict) -> Inputs:
    data = DataOptions(source="tfds", name=config.data.name, root=config.prepare.root)
    names: tuple[str, ...] = ()
    splits = {}
    for split, place in places(config).items():
        source: Any = open_source(data, place)
        names = source.class_names
        path = str(source.records.dataset_info.data_dir)
        splits[split] = [
            TfdsRecord(f"{place} {index}", path, data, place, index) for index in range(len(source))
        ]
    return Inputs(classes.from_ids(names), splits)


@cache
def _records(data: DataOptions, split: str) -> Sequence[dict[str, Any]]:
    """Opens a TFDS split, once in a process."""
    source: Any = open_source(data, split)
    return source.records
