"""Pictures in folders: ROOT/SPLIT/CLASS/PICTURE, with the habits of the field."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.data import splits
from alexnet_jax.data.images import EXTENSIONS, UnreadableImage, decode, resize_and_crop
from alexnet_jax.data.sources import Examples
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

_EXTENSIONS = tuple(os.fsencode(extension) for extension in EXTENSIONS)


@dataclass(frozen=True)
class FileNames:
    """File names, joined end to end: 25 MB for ImageNet's, where Python strings take 100.

    Attributes:
      joined: all names, in the file system's bytes.
      ends: int64[n], where each name ends in `joined`.
    """

    joined: bytes
    ends: np.ndarray

    def __getitem__(self, index: int) -> str:
        start = self.ends[index - 1] if index else 0
        return os.fsdecode(self.joined[start : self.ends[index]])


@dataclass(frozen=True)
class FolderSource:
    """The pictures of one split, decoded when they are read.

    Attributes:
      folder: the folder of the split.
      class_names: the class folders of the training split, in ASCII order.
      names: the name of each picture, below its class folder.
      labels: int32[n].
      image_shape: (height, width, channels) of every picture handed out.
    """

    folder: Path
    class_names: tuple[str, ...]
    names: FileNames
    labels: np.ndarray
    image_shape: tuple[int, int, int]

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

    def read(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the pictures at `indices`; a broken one gives readable False."""
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        readable = np.zeros(len(indices), bool)
        size, _, channels = self.image_shape
        for row, index in enumerate(indices):
            try:
                data = Path(self.describe(index)).read_bytes()
                images[row] = resize_and_crop(decode(data, channels), size)
            except (OSError, UnreadableImage):
                continue
            readable[row] = True
        return Examples(images, self.labels[indices], readable)

    def describe(self, index: int) -> str:
        """Returns the path of one picture."""
        class_name = self.class_names[self.labels[index]]
        return os.path.join(self.folder, class_name, self.names[index])


def open_split(data: ConfigDict, split: str) -> FolderSource:
    """Lists the pictures of one split; the class indices are those of the training split.

    Args:
      data: the `data` part of the config; reads root, train_split, image_size and channels.
      split: the name of a folder in root, or one of SPLIT_ALIASES.

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
        class_names = _class_names(root, _find_split(root, train_split))
        folder = _find_split(root, split)
        _refuse_unknown_classes(root, folder, class_names)
        names, labels = _list_pictures(folder, class_names)
    except OSError as error:
        path = os.fsdecode(error.filename)
        raise InputError(
            f"{path} cannot be listed ({error.strerror}): expected {_layout(root)}."
        ) from error
    if not len(labels):
        raise InputError(
            f"{folder} has no pictures in class folders: expected {_layout(root)}, each PICTURE "
            f"with one of the extensions {' '.join(EXTENSIONS)}."
        )
    shape = (data.image_size, data.image_size, data.channels)
    source = FolderSource(folder, class_names, names, labels, shape)
    if source.empty_classes:
        _log.warning("%s has no pictures of %s.", folder, ", ".join(source.empty_classes))
    return source


def _layout(root: Path) -> str:
    """Shows the layout that is expected below `root`."""
    return f"{root}/train/CLASS/PICTURE.jpg and {root}/val/CLASS/PICTURE.jpg"


def _find_split(root: Path, split: str) -> Path:
    """Finds the folder of a split: by its exact name, else by case or alias."""
    folders = _subfolders(root)
    if split in folders:
        return root / split
    for tier in ((split.lower(),), *SPLIT_ALIASES.get(split.lower(), ())):
        found = [name for name in folders if name.lower() in tier]
        if len(found) > 1:
            raise InputError(
                f"{root} has several folders for split {split!r} ({', '.join(found)}): name one "
                "with --config.data.train_split or --config.data.eval_split."
            )
        if found:
            return root / found[0]
    raise InputError(f"{root} has no folder for split {split!r}: expected {_layout(root)}.")


def _class_names(root: Path, folder: Path) -> tuple[str, ...]:
    """Returns the class folders of the training split in ASCII order, at least two."""
    class_names = tuple(_subfolders(folder))
    if len(class_names) < 2:
        found = f"only the class folder {class_names[0]!r}" if class_names else "no class folders"
        raise InputError(
            f"{folder} has {found}, and a classifier needs two or more: expected {_layout(root)}."
        )
    return class_names


def _refuse_unknown_classes(root: Path, folder: Path, class_names: tuple[str, ...]) -> None:
    """Raises InputError if a split has a class folder that the training split has not."""
    unknown = sorted(set(_subfolders(folder)) - set(class_names))
    if unknown:
        raise InputError(
            f"{folder} has the class folder {unknown[0]!r}, which the training split has not: "
            f"expected {_layout(root)}, with the classes of train in both."
        )


def _subfolders(folder: Path) -> list[str]:
    """Returns the names of the visible folders in `folder`, in ASCII order."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def _list_pictures(folder: Path, class_names: tuple[str, ...]) -> tuple[FileNames, np.ndarray]:
    """Lists the pictures of every class, in order, with their labels int32[n]."""
    resolved = folder.resolve()
    ancestors = {_identity(parent) for parent in (resolved, *resolved.parents)}
    chunks, lengths, counts = [], [], []
    for class_name in class_names:
        top = os.fsencode(folder / class_name)
        names = sorted(_walk(top, b"", set(ancestors))) if os.path.isdir(top) else []
        chunks.append(b"".join(names))
        lengths.append(np.fromiter(map(len, names), np.int64, len(names)))
        counts.append(len(names))
    labels = np.repeat(np.arange(len(class_names), dtype=np.int32), counts)
    return FileNames(b"".join(chunks), np.cumsum(np.concatenate(lengths))), labels


def _walk(folder: bytes, prefix: bytes, visited: set[tuple[int, int]]) -> list[bytes]:
    """Lists the pictures at any depth; links are followed, but no folder is entered twice.

    Only folders cost a call to the file system each; files are told by the listing alone.
    """
    identity = _identity(folder)
    if identity in visited:
        return []
    visited.add(identity)
    folders, pictures = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith(b"."):
                continue
            if entry.is_dir():
                folders.append(name)
            elif name.lower().endswith(_EXTENSIONS):
                pictures.append(prefix + name)
    for name in sorted(folders):  # of two links to one folder always the same is entered
        pictures += _walk(os.path.join(folder, name), prefix + name + b"/", visited)
    return pictures


def _identity(folder: bytes | Path) -> tuple[int, int]:
    """Tells a folder apart from all others, whatever path led to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino
