"""Pictures in folders: ROOT/SPLIT/CLASS/PICTURE, with the habits of the field."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.data import classes, splits
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.data.listing import FileNames, held_out, list_pictures, subfolders
from alexnet_jax.data.sources import Examples, RawExample, decode_files
from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)

# What the field calls its splits. A split is looked for by its own name first, then by these, a
# tier after the other: who wants "val" takes "test" where there is no validation split.
_TRAIN = ("train", "training", "train_images")
_VAL = ("val", "valid", "validation", "val_images")
_TEST = ("test", "testing", "test_images")
SPLIT_ALIASES = (
    dict.fromkeys(_TRAIN, (_TRAIN,))
    | dict.fromkeys(_VAL, (_VAL, _TEST))
    | dict.fromkeys(_TEST, (_TEST,))
)


@dataclass(frozen=True)
class FolderSource:
    """The pictures of one split, decoded when they are read.

    Attributes:
      folder: the folder of the split.
      classes: the class folders of the training split, in ASCII order, with the words of the class
        table in the root, where there is one.
      names: the name of each picture, below its class folder.
      labels: int32[n].
      image_shape: (height, width, channels) of every picture handed out.
    """

    folder: Path
    classes: ClassTable
    names: FileNames
    labels: np.ndarray
    image_shape: tuple[int, int, int]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders."""
        return self.classes.ids

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The words of the classes."""
        return self.classes.words

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def split(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def empty_classes(self) -> tuple[str, ...]:
        """The classes that have no picture in this split."""
        counts = np.bincount(self.labels, minlength=len(self.class_names))
        return tuple(self.class_names[label] for label in np.flatnonzero(counts == 0))

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Reads the files of the pictures at `indices`."""
        return [
            RawExample(_contents(self.describe(index)), int(self.labels[index]))
            for index in indices
        ]

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Decodes pictures; a broken one gives readable False."""
        return decode_files(stored, self.image_shape)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the pictures at `indices`."""
        return self.decode(self.load(indices))

    def describe(self, index: int) -> str:
        """Returns the path of one picture."""
        class_name = self.class_names[self.labels[index]]
        return os.path.join(self.folder, class_name, self.names[index])


def _contents(path: str) -> bytes:
    """Returns the contents of a file, nothing where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""


class _Place(NamedTuple):
    """Where the pictures of a split lie.

    Attributes:
      folder: holds the class folders.
      held_out: in a root without split folders, whether they are the part held out; else None.
    """

    folder: Path
    held_out: bool | None = None


def open_split(data: ConfigDict, split: str, *, fewest_classes: int = 2) -> FolderSource:
    """Lists the pictures of one split; the class indices are those of the training split.

    Where the root has no split folders but class folders, data.holdout of each class is the
    validation split, the rest the training split (`listing.held_out`).

    Args:
      data: the `data` part of the config; reads root, train_split, holdout, image_size and
        channels.
      split: the name of a folder in root, one of SPLIT_ALIASES, or '.', the root itself.
      fewest_classes: class folders that the training split must have.

    Returns:
      The source, in the order of class and path.

    Raises:
      InputError: if the root, the split, its classes or its pictures are not as expected.
    """
    if not data.root:
        raise InputError("data.source=folder needs a folder: set --config.data.root=DIR.")
    root = Path(data.root).expanduser()
    try:
        train_split, *_ = splits.parse(data.train_split)
        class_names = _class_names(root, _find_split(root, train_split).folder, fewest_classes)
        place = _find_split(root, split)
        _refuse_unknown_classes(root, place.folder, class_names)
        names, labels = list_pictures(place.folder, class_names)
    except OSError as error:
        path = os.fsdecode(error.filename)
        raise InputError(
            f"{path} cannot be listed ({error.strerror}): expected {_layout(root)}."
        ) from error
    if not len(labels):
        raise InputError(
            f"{place.folder} has no pictures in class folders: expected {_layout(root)}, each "
            f"PICTURE with one of the extensions {' '.join(EXTENSIONS)}."
        )
    if place.held_out is not None:
        chosen = np.flatnonzero(held_out(names, labels, data.holdout) == place.held_out)
        names, labels = names.take(chosen), labels[chosen]
    table, plain = classes.find(root, None), classes.plain(class_names)
    source = FolderSource(
        place.folder,
        plain.with_words_of(table) if table else plain,
        names,
        labels,
        (data.image_size, data.image_size, data.channels),
    )
    _tell(source, place, split)
    return source


def _tell(source: FolderSource, place: _Place, split: str) -> None:
    """Says what a user may not expect of a split."""
    if place.held_out:
        _log.info(
            "%s has no folders train and val: %d pictures, a part of each class, are held out "
            "as %r (data.holdout).",
            source.folder,
            len(source),
            split,
        )
    if source.empty_classes:
        _log.warning("%s has no pictures of %s.", source.folder, ", ".join(source.empty_classes))


def _layout(root: Path) -> str:
    """Shows the layout that is expected below `root`."""
    return (
        f"{root}/train/CLASS/PICTURE.jpg and {root}/val/CLASS/PICTURE.jpg, or {root}/CLASS/"
        "PICTURE.jpg"
    )


def _find_split(root: Path, split: str) -> _Place:
    """Finds the folder of a split: by its exact name, else by case or alias."""
    folders = subfolders(root)
    if split in folders or split == ".":
        return _Place(root / split)
    tiers = SPLIT_ALIASES.get(split.lower(), ())
    for tier in ((split.lower(),), *tiers):
        found = [name for name in folders if name.lower() in tier]
        if len(found) > 1:
            raise InputError(
                f"{root} has several folders for split {split!r} ({', '.join(found)}): name one "
                "with --config.data.train_split or --config.data.eval_split."
            )
        if found:
            return _Place(root / found[0])
    if tiers and folders and not any(map(_has_splits, (root, *(root / name for name in folders)))):
        return _Place(root, held_out=split.lower() not in _TRAIN)
    raise InputError(
        f"{root} has no folder for split {split!r}: expected {_layout(root)}. A part of another "
        "split is written as 'train[:90%]', the rest as 'train[90%:]'."
    )


def _has_splits(folder: Path) -> bool:
    """Tells whether a folder holds one that is called like a split."""
    return any(name.lower() in SPLIT_ALIASES for name in subfolders(folder))


def _class_names(root: Path, folder: Path, fewest: int) -> tuple[str, ...]:
    """Returns the class folders of the training split in ASCII order."""
    class_names = tuple(subfolders(folder))
    if len(class_names) < fewest:
        found = f"only the class folder {class_names[0]!r}" if class_names else "no class folders"
        raise InputError(
            f"{folder} has {found}, and a classifier needs two or more: expected {_layout(root)}."
        )
    return class_names


def _refuse_unknown_classes(root: Path, folder: Path, class_names: tuple[str, ...]) -> None:
    """Raises InputError if a split has a class folder that the training split has not."""
    unknown = sorted(set(subfolders(folder)) - set(class_names))
    if unknown:
        raise InputError(
            f"{folder} has the class folder {unknown[0]!r}, which the training split has not: "
            f"expected {_layout(root)}, with the classes of train in both."
        )
