"""Where examples come from: the base class of every source, and the table of all of them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.data import classes, images, listing, splits
from alexnet_jax.data.statistics import Statistics
from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)
_CLASSES_LOGGED = 10

# The modules of this package with a function `open_split(options, split) -> Source`. Imported only
# when needed: TFDS takes longer to import than all the others together.
SOURCES = ("digits", "folder", "parquet", "prepared", "tfds")


@dataclass(frozen=True)
class DataOptions:
    """What opens a split: keys of the config's section `data`, which documents them."""

    source: str
    root: str | None
    name: str
    train_split: str
    eval_split: str
    holdout: float
    image_size: int
    resize: str
    channels: int
    allow_empty_classes: bool

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image that a source returns."""
        return self.image_size, self.image_size, self.channels

    @property
    def folder(self) -> Path:
        """The root as a path.

        Raises:
          InputError: no root is set, or it is not a folder.
        """
        root = Path(self.root or "").expanduser()
        if not self.root or not root.is_dir():
            missing = f"There is no folder {root}" if self.root else "A folder is needed"
            raise InputError(f"{missing}: set --config.data.root=DIR (job=prepare: prepare.root).")
        return root


class Examples(NamedTuple):
    """Some examples of a source, in the order requested.

    Attributes:
      images: uint8[n, height, width, channels]; zeros where unreadable.
      labels: int32[n], class indices from 0.
      readable: bool[n], False where the image could not be decoded.
    """

    images: np.ndarray
    labels: np.ndarray
    readable: np.ndarray


class RawExample(NamedTuple):
    """One example as it is stored.

    Attributes:
      data: the bytes of an image file, empty where they cannot be read, or uint8[height, width,
        channels] of a dataset that needs no decoding.
      label: class index from 0.
    """

    data: Any
    label: int


@dataclass(eq=False)
class Source:
    """One split of a dataset of labeled images, with random access from any number of threads.

    A new source defines `path` where its images are files, otherwise `read_one`, or `read` where
    examples are better read together; the rest follows from the fields. Sources are pickled to
    reach worker processes.

    Attributes:
      name: the dataset in messages.
      split: the split, under the dataset's own name for it.
      classes: the classes of the training split.
      image_shape: (height, width, channels) of every image returned.
      labels: int32[n], class indices from 0; None where only reading an example gives its label.
      resize: how images of another size become squares: a key of images.RESIZERS.
    """

    name: str
    split: str
    classes: classes.ClassTable
    image_shape: tuple[int, int, int]
    labels: Any
    resize: str = field(default="crop", kw_only=True)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The unique name of each class index."""
        return self.classes.ids

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> bytes | None:
        """Returns the path of the image file that an example is; None where it is not a file."""
        return None

    def read_one(self, index: int) -> Any:
        """Reads the data of one RawExample."""
        return listing.contents(self.path(index) or b"")

    def read(self, indices: np.ndarray) -> list[RawExample]:
        """Reads the examples at int[n] `indices` without decoding them."""
        data = map(self.read_one, indices.tolist())
        return list(map(RawExample, data, self.labels[indices].tolist()))

    def decode(self, raw: Sequence[RawExample]) -> Examples:
        """Decodes what `read` returned."""
        out = np.empty((len(raw), *self.image_shape), np.uint8)
        readable = np.ones(len(raw), bool)
        for row, example in enumerate(raw):
            try:
                self.decode_into(out[row], example.data)
            except images.UnreadableImage:
                out[row], readable[row] = 0, False
        return Examples(out, np.array([example.label for example in raw], np.int32), readable)

    def decode_into(self, out: np.ndarray, data: Any) -> None:
        """Writes one image to `out`, uint8[height, width, channels].

        Raises:
          UnreadableImage: it cannot be decoded.
        """
        size, _, channels = self.image_shape
        pixels = data if isinstance(data, np.ndarray) else images.decode(data, channels)
        out[...] = images.RESIZERS[self.resize](pixels, size)

    def load(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the examples at int[n] `indices`."""
        return self.decode(self.read(indices))

    def describe(self, index: int) -> str:
        """Names one example in a message: its file, or its index in the split."""
        path = self.path(index)
        return listing.printable(path) if path else f"{self.name} {self.split} example {index}"

    def statistics(self) -> Statistics | None:
        """Returns the statistics of the split's images if they are stored with it."""
        return None


@dataclass(eq=False)
class ArraySource(Source):
    """Examples in memory.

    Attributes:
      images: uint8[n, height, width, channels]; resized to image_shape where they differ from it.
    """

    images: np.ndarray

    def read_one(self, index: int) -> Any:
        return self.images[index]


class Subset(Source):
    """Some examples of another source.

    Attributes:
      source: the other source, whose labels are known.
      indices: int[n], which of its examples, in order.
    """

    def __init__(self, source: Source, indices: np.ndarray, split: str):
        fields = (source.name, split, source.classes, source.image_shape, source.labels[indices])
        super().__init__(*fields, resize=source.resize)
        self.source, self.indices = source, indices

    def read(self, indices: np.ndarray) -> list[RawExample]:
        return self.source.read(self.indices[indices])

    def decode_into(self, out: np.ndarray, data: Any) -> None:
        self.source.decode_into(out, data)

    def path(self, index: int) -> bytes | None:
        return self.source.path(int(self.indices[index]))

    def describe(self, index: int) -> str:
        return self.source.describe(int(self.indices[index]))


def open_source(options: DataOptions, split: str, class_names: Sequence[str] = ()) -> Source:
    """Opens one split.

    Args:
      options: the dataset.
      split: usually options.train_split or options.eval_split: a name, or a part of a split in
        TFDS's notation, such as 'train[:90%]'. Every part holds the classes in their shares.
      class_names: of the source 'folder': the classes to number; others do without it.

    Returns:
      The source. Its class indices are those of `class_names`, else those of the training split.

    Raises:
      InputError: the dataset is missing or malformed, or the part is empty.
    """
    # TFDS takes the parts of its splits itself.
    name, part = (split, "") if options.source == "tfds" else splits.parse(split)
    known = [class_names] if class_names and options.source == "folder" else []
    module = import_module(f"{__package__}.{options.source}")
    source: Source = module.open_split(options, name, *known)
    source.resize = options.resize
    if not part:
        return source
    indices = splits.mixed_order(source.labels)[splits.indices(split, len(source))]
    return Subset(source, indices, source.split + part)


def open_splits(options: DataOptions) -> tuple[Source, Source]:
    """Opens the training and the evaluation split, checks their classes and logs them.

    Raises:
      InputError: as in `open_source`; or there are fewer than two classes, the splits have
        different classes, or a class has no training images (unless
        options.allow_empty_classes).
    """
    train = open_source(options, options.train_split)
    held_out = open_source(options, options.eval_split)
    names = train.class_names
    if len(names) < 2:
        raise InputError(
            f"The training images of {train.name} have only the class {', '.join(names)!r}, and a "
            "classifier needs two or more: check --config.data.root and --config.data.train_split."
        )
    if changes := classes.difference(names, held_out.class_names):
        raise InputError(
            f"The split data.eval_split={options.eval_split!r} has other classes than "
            f"data.train_split={options.train_split!r}: {changes}."
        )
    _check_counts(train, required=not options.allow_empty_classes)
    _check_counts(held_out, required=False)
    return train, held_out


def _check_counts(source: Source, *, required: bool) -> None:
    """Logs the number of images of each class; a class without any is an error if required."""
    names, labels = source.class_names, source.labels
    counts = [] if labels is None else np.bincount(labels, minlength=len(names)).tolist()
    shown = [f"{name} ({count:,})" for name, count in zip(names, counts, strict=False)] or names
    if len(names) > _CLASSES_LOGGED:
        shown = [*shown[:_CLASSES_LOGGED], f"{len(names) - _CLASSES_LOGGED} more"]
    what = f"{source.split} of {source.name}: {len(source):,} images of {len(names):,} classes"
    _log.info("Split %s: %s.", what, ", ".join(shown))
    if empty := [name for name, count in zip(names, counts, strict=False) if not count]:
        problem = f"Split {what}, but none of {len(empty)} of them, such as {empty[0]!r}"
        if required:
            fix = "remove them, or set --config.data.allow_empty_classes=True"
            raise InputError(f"{problem}: {fix}.")
        _log.warning("%s.", problem)
