"""Opens everything that can be prepared in one form: a source per split."""

import dataclasses
import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_jax.data import classes, listing
from alexnet_jax.data.source import DataOptions, Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import LISTINGS

_log = logging.getLogger(__name__)

Inputs = Mapping[str, Source]  # the images of each split, in a fixed order

UNLABELED = -1


class InputOptions(NamedTuple):
    """What to prepare.

    Attributes:
      data: the dataset, of any source in INPUTS; its own splits are ignored.
      splits, class_table, columns, pattern: keys of the config's section `prepare`, which documents
        them.
    """

    data: DataOptions
    splits: tuple[str, ...]
    class_table: str | None
    columns: tuple[str, ...]
    pattern: str

    @property
    def locations(self) -> dict[str, str]:
        """{split: location} of the texts 'NAME' or 'NAME=LOCATION' in `splits`."""
        pairs = (text.partition("=") for text in self.splits)
        return {name: location or name for name, _, location in pairs}


class Row(NamedTuple):
    """An image and its label, as a list or a file name gives it.

    Attributes:
      where: file and line, or folder, for messages.
      name: its path below the root, or another name if it is a part of a file.
      label: the text of the label; "": it has none.
      file: the path below the root of the file that contains it; None: `name`.
      offset: the byte of the file at which it starts.
      size: its size in bytes; -1: to the end of the file.
    """

    where: str
    name: str
    label: str
    file: str | None = None
    offset: int = 0
    size: int = -1


Rows = Mapping[str, Sequence[Row]]  # of each split


@dataclasses.dataclass(eq=False)
class FileList(Source):
    """Images that are files or parts of files.

    Attributes:
      root: the folder of the files.
      names: bytes[n], the name of each image.
      files: bytes[n], the path of each image's file below the root.
      ranges: int64[n, 2], `offset` and `size` of each image, as in Row.
    """

    root: Path
    names: np.ndarray
    files: np.ndarray
    ranges: np.ndarray

    def read_one(self, index: int) -> bytes:
        return listing.contents(self.path(index), *self.ranges[index].tolist())

    def path(self, index: int) -> bytes:
        return os.path.join(os.fsencode(self.root), self.files[index])

    def describe(self, index: int) -> str:
        return listing.printable(self.names[index])


def name_of(source: Source, index: int) -> str:
    """Returns the name of an image: its path below the root, or its index in its dataset."""
    return source.describe(index).removeprefix(f"{source.name}/")


def open_inputs(options: InputOptions) -> Inputs:
    """Opens the images that the options describe.

    Raises:
      InputError: they are missing or malformed, a split has no images, or there are no classes.
    """
    inputs = _open_rows(options) if options.data.source in LISTINGS else _open_sources(options)
    for split, source in inputs.items():
        if not len(source):
            raise InputError(f"The split {split!r} of {source.name} has no images.")
        if not source.classes.ids:
            raise InputError(
                f"No image of {source.name} has a label, so there are no classes: set "
                "--config.prepare.class_table=FILE if that is intended."
            )
    return inputs


def _open_sources(options: InputOptions) -> Inputs:
    train, *_ = options.locations.values()  # whose classes are those of all splits
    # Classes without images are allowed: the report lists them.
    data = dataclasses.replace(options.data, train_split=train, allow_empty_classes=True)
    inputs = {split: open_source(data, location) for split, location in options.locations.items()}
    if options.class_table:
        table = classes.read(Path(options.class_table).expanduser())
        for source in inputs.values():
            source.classes = source.classes.with_labels_of(table)
    return inputs


def _open_rows(options: InputOptions) -> Inputs:
    rows, table = import_module(LISTINGS[options.data.source]).list_rows(options)
    found = classes.find(options.data.folder, options.class_table)
    table = table.with_labels_of(found) if table else found
    return from_rows(rows, table, options.data.folder, options.data.image_shape)


def from_rows(
    rows: Rows, table: classes.ClassTable | None, root: Path, image_shape: tuple[int, int, int]
) -> Inputs:
    """Returns the images that rows describe.

    Labels are ids of the class table or, if all labels of a split are integers, row numbers in it.
    Without a table, the classes are the distinct labels of the first split that has any, sorted.

    Raises:
      InputError: a label is not a class, or only some rows of a split have a label.
    """
    labels = {split: {row.label for row in listed} - {""} for split, listed in rows.items()}
    known = table or classes.from_ids(_in_order(next(filter(None, labels.values()), set())))
    inputs = {}
    for split, listed in rows.items():
        names = _numbers_or_ids(labels[split], known.ids) if table else known.ids
        inputs[split] = FileList(
            *(str(root), split, known, image_shape, _class_indices(listed, names), root),
            names=np.array([os.fsencode(row.name) for row in listed]),
            files=np.array([os.fsencode(row.file or row.name) for row in listed]),
            ranges=np.array([(row.offset, row.size) for row in listed]),
        )
    return inputs


def _are_numbers(labels: set[str]) -> bool:
    return all(re.fullmatch(r"-?\d{1,18}", label) for label in labels)


def _in_order(labels: set[str]) -> list[str]:
    """Returns labels in ASCII order, integers by value; negative ones are not classes."""
    if not _are_numbers(labels):
        return sorted(labels)
    return sorted((label for label in labels if int(label) >= 0), key=int)


def _numbers_or_ids(labels: set[str], ids: Sequence[str]) -> Sequence[str]:
    """Returns the labels of all classes in a split: their ids, or numbers where it uses those.

    Numbers start at 0, or at 1 if no label is 0 and one is the number of classes.
    """
    if not _are_numbers(labels) or labels <= set(ids):
        return ids
    start = int("0" not in labels and str(len(ids)) in labels)
    if start:
        _log.info("No label is 0 and one is %d: assuming that labels count from 1.", len(ids))
    return [str(start + index) for index in range(len(ids))]


def _class_indices(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """Returns the class index of each row, int32[n]; `names` are the labels of all classes."""
    without = [row for row in rows if not row.label]
    if 0 < len(without) < len(rows):
        raise InputError(
            f"{without[0].where}: {without[0].name} has no label ({len(without)} of {len(rows)} "
            "images have none): label all images of a split, or none; "
            "--config.prepare.pattern finds labels in file names."
        )
    index_of = {"": UNLABELED} | {name: index for index, name in enumerate(names)}
    for unknown in (row for row in rows if row.label not in index_of):
        raise InputError(
            f"{unknown.where}: the label {unknown.label!r} of {unknown.name} is none of the "
            f"{len(names)} classes, {' to '.join([*names[:1], *names[-1:]])}."
        )
    return np.array([index_of[row.label] for row in rows], np.int32)


def fingerprint(inputs: Inputs) -> str:
    """Returns a checksum that changes when the inputs do.

    It covers the name, size and modification time of every image file; for a split without image
    files, the data of 64 examples.
    """
    digest = hashlib.sha256()
    for split, source in inputs.items():
        digest.update(repr((split, len(source), source.classes)).encode())
        if source.labels is not None:
            digest.update(np.asarray(source.labels, "<i4").tobytes())
        if source.path(0) is None:
            sample = np.linspace(0, len(source) - 1, 64).astype(int)
            for data, label in source.read(sample):
                digest.update(b"%d " % label + bytes(data))
        else:
            for index in range(len(source)):
                digest.update(f"{name_of(source, index)}\0{_state(source, index)}\0".encode())
    return digest.hexdigest()


def _state(source: Source, index: int) -> str:
    """Returns the size and modification time of an image file, or the error if it has none."""
    try:
        status = os.stat(source.path(index) or b"")
    except (OSError, ValueError) as error:
        return type(error).__name__
    return f"{status.st_size} {status.st_mtime_ns}"
