"""Everything that can be prepared, in one form: a source per split."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.listing import printable, read_file
from alexnet_jax.data.source import DataOptions, RawExample, Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import LISTINGS

UNLABELED = -1

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
    """Images that are files in a folder, or byte ranges of one file.

    Attributes:
      root: the folder, or the one file.
      names: bytes[n], the path of each image below the folder; in one file, what it is called.
      ranges: int64[n, 2], offset and size of each image in the one file.
    """

    root: Path
    names: np.ndarray
    ranges: np.ndarray | None = None

    def read(self, indices: np.ndarray) -> list[RawExample]:
        return [RawExample(self._contents(index), int(self.labels[index])) for index in indices]

    def _contents(self, index: int) -> bytes:
        offset, size = (0, -1) if self.ranges is None else self.ranges[index].tolist()
        try:
            return read_file(self.path(index), offset, size)
        except (OSError, ValueError):
            return b""

    def path(self, index: int) -> bytes:
        root = os.fsencode(self.root)
        return root if self.ranges is not None else os.path.join(root, self.names[index])

    def describe(self, index: int) -> str:
        return printable(self.names[index])


class Inputs(NamedTuple):
    """All that is to be prepared.

    Attributes:
      classes: of every split.
      splits: the images of each split, in a fixed order.
      root: the folder that the names of images are relative to.
    """

    classes: ClassTable
    splits: Mapping[str, Source]
    root: str = ""

    def name_of(self, split: str, index: int) -> str:
        """Returns the name of an image: its path below the root, or its index in its set."""
        prefix = f"{printable(self.root)}/" if self.root else ""
        return self.splits[split].describe(index).removeprefix(prefix)


def open_inputs(options: InputOptions) -> Inputs:
    """Lists the images that the options name.

    Raises:
      InputError: they are missing or malformed, a split has no images, or there are no classes.
    """
    if options.input in LISTINGS:
        inputs: Inputs = import_module(LISTINGS[options.input]).open_inputs(options)
    else:
        inputs = _open_sources(options)
    for split, source in inputs.splits.items():
        if not len(source):
            raise InputError(f"The split {split!r} of {options.root} has no images.")
    if not inputs.classes.ids:
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
    splits = {split: open_source(data, location) for split, location in locations.items()}
    table = next(iter(splits.values())).classes
    if options.class_table:
        table = table.with_labels_of(classes.read(Path(options.class_table).expanduser()))
    return Inputs(table, splits, str(Path(options.root).expanduser()) if options.root else "")


def fingerprint(inputs: Inputs) -> str:
    """Returns a checksum that changes when the inputs do.

    It covers the name, size and time of every image file; of a split without such files, some
    examples themselves.
    """
    state = lru_cache(maxsize=8)(_state)  # the images of one tar have one path
    digest = hashlib.sha256(repr(inputs.classes).encode(errors="surrogateescape"))
    for split, source in inputs.splits.items():
        digest.update(f"{split} {len(source)}".encode())
        if source.labels is not None:
            digest.update(np.asarray(source.labels, "<i4").tobytes())
        if source.path(0) is None:
            indices = np.linspace(0, len(source) - 1, _SAMPLE).astype(int)
            for example in source.read(indices):
                digest.update(f"{example.label}".encode() + bytes(example.data))
            continue
        for index in range(len(source)):
            text = f"{source.describe(index)}\0{state(source.path(index))}\0"
            digest.update(text.encode())
    return digest.hexdigest()


def _state(path: bytes) -> str:
    """Returns the size and the time of a file; one that is missing has a state too."""
    try:
        status = os.stat(path)
    except OSError as error:
        return str(error.errno)
    return f"{status.st_size} {status.st_mtime_ns}"
