"""Everything that can be prepared, in one form: a source per split."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.listing import contents, printable
from alexnet_jax.data.source import DataOptions, Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import LISTINGS
from alexnet_jax.prepare.labels import Row, class_indices

Inputs = Mapping[str, Source]  # the images of each split, in a fixed order

_SAMPLE = 64  # examples that stand for a split without image files of its own


@dataclass(frozen=True)
class InputOptions:
    """What to prepare: keys of the config's section `prepare`, which documents them.

    Attributes:
      data: the options of an input that is a source, apart from its root and its splits.
    """

    input: str
    root: str | None
    splits: tuple[str, ...]
    class_table: str | None
    columns: tuple[str, ...]
    pattern: str
    data: DataOptions

    @property
    def locations(self) -> dict[str, str]:
        """{split: location} of the texts 'NAME' or 'NAME=LOCATION' in `splits`."""
        pairs = (text.partition("=") for text in self.splits)
        return {name: location or name for name, _, location in pairs}

    @property
    def folder(self) -> Path:
        """The root as a path.

        Raises:
          InputError: there is no such folder.
        """
        root = Path(self.root or "").expanduser()
        if not self.root or not root.is_dir():
            raise InputError(f"There is no folder {self.root}: set --config.prepare.root=DIR.")
        return root


@dataclass(eq=False)
class FileList(Source):
    """Images that are files, or parts of files.

    Attributes:
      root: the folder of the files.
      names: bytes[n], what each image is called.
      files: bytes[n], the path of each image's file below the root.
      ranges: int64[n, 2], where each image starts in its file, and its bytes; -1: all.
    """

    root: Path
    names: np.ndarray
    files: np.ndarray
    ranges: np.ndarray

    def read_one(self, index: int) -> bytes:
        return contents(self.path(index), *self.ranges[index].tolist())

    def path(self, index: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self.files[index])

    def describe(self, index: int) -> str:
        return printable(self.names[index])


def name_of(source: Source, index: int) -> str:
    """Returns the name of an image: its path below the root, or its index in its set."""
    return source.describe(index).removeprefix(f"{source.name}/")


def open_inputs(options: InputOptions) -> Inputs:
    """Lists the images that the options name.

    Raises:
      InputError: they are missing or malformed, a split has no images, or there are no classes.
    """
    inputs = _open_rows(options) if options.input in LISTINGS else _open_sources(options)
    for split, source in inputs.items():
        if not len(source):
            raise InputError(f"The split {split!r} of {options.root} has no images.")
        if not source.classes.ids:
            raise InputError(
                f"No image of {options.root} has a label, so there are no classes: set "
                "--config.prepare.class_table=FILE if that is intended."
            )
    return inputs


def _open_sources(options: InputOptions) -> Inputs:
    locations = options.locations
    data = dataclasses.replace(
        options.data,
        source=options.input,
        root=options.root,
        train_split=next(iter(locations.values())),
        allow_empty_classes=True,  # the report lists them
    )
    inputs = {split: open_source(data, location) for split, location in locations.items()}
    if options.class_table:
        table = classes.read(Path(options.class_table).expanduser())
        for source in inputs.values():
            source.classes = source.classes.with_labels_of(table)
    return inputs


def _open_rows(options: InputOptions) -> Inputs:
    rows, table = import_module(LISTINGS[options.input]).list_rows(options)
    found = classes.find(options.folder, options.class_table)
    table = table.with_labels_of(found) if table else found
    return from_rows(rows, table, options.folder, options.data.image_shape)


def from_rows(
    rows: Mapping[str, Sequence[Row]],
    table: ClassTable | None,
    root: Path,
    image_shape: tuple[int, int, int],
) -> Inputs:
    """Returns the images that rows describe.

    Raises:
      InputError: see `class_indices`.
    """
    table, labels = class_indices(rows, table)
    inputs = {}
    for split, listed in rows.items():
        names = np.array([os.fsencode(row.name) for row in listed])
        files = np.array([os.fsencode(row.file or row.name) for row in listed])
        ranges = np.array([(row.offset, row.size) for row in listed])
        inputs[split] = FileList(
            str(root), split, table, image_shape, labels[split], root, names, files, ranges
        )
    return inputs


def fingerprint(inputs: Inputs) -> str:
    """Returns a checksum that changes when the inputs do.

    It covers the name, size and time of every image file; of a split without such files, some
    examples themselves.
    """
    digest = hashlib.sha256()
    for split, source in inputs.items():
        digest.update(repr((split, len(source), source.classes)).encode())
        if source.labels is not None:
            digest.update(np.asarray(source.labels, "<i4").tobytes())
        if source.path(0) is None:
            sample = np.linspace(0, len(source) - 1, _SAMPLE).astype(int)
            for data, label in source.read(sample):
                digest.update(b"%d " % label + bytes(data))
            continue
        for index in range(len(source)):
            digest.update(f"{name_of(source, index)}\0{_state(source.path(index))}\0".encode())
    return digest.hexdigest()


def _state(path: Any) -> str:
    """Returns the size and the time of a file; one that is missing has a state too."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return type(error).__name__
    return f"{status.st_size} {status.st_mtime_ns}"
