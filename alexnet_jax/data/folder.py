"""Images in folders: ROOT/SPLIT/CLASS/IMAGE.jpg, or ROOT/CLASS/IMAGE.jpg with a part held out."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data import classes, listing, splits
from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.data.source import DataOptions, RawExample, Source
from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)

# Folders beside images, or around them, that never are classes.
_NO_CLASSES = frozenset(
    ("images", "imgs", "jpegimages", "annotations", "labels", "masks", "bboxes", "metadata")
)


@dataclass(eq=False)
class FolderSource(Source):
    """The image files of one split, in the order of class and path.

    Attributes:
      folder: the folder of the split.
      class_folders: the name of each class's folder as the file system has it.
      names: bytes of each image's path below its class folder.
    """

    folder: Path
    class_folders: tuple[str, ...]
    names: np.ndarray

    def read(self, indices: np.ndarray) -> list[RawExample]:
        return [RawExample(listing.contents(self.path(i)), int(self.labels[i])) for i in indices]

    def path(self, index: int) -> bytes:
        class_folder = self.folder / self.class_folders[self.labels[index]]
        return os.path.join(os.fsencode(class_folder), self.names[index])

    def describe(self, index: int) -> str:
        return listing.printable(self.path(index))


def open_split(options: DataOptions, split: str) -> FolderSource:
    """Lists the images of one split; the class indices are those of the training split.

    Where the root has no split folders but class folders, data.holdout of each class is the
    validation split, the rest the training split (`listing.held_out`).

    Args:
      options: the set.
      split: the name of a folder in the root, a name of the same kind, or '.', the root itself.

    Raises:
      InputError: the root, the split, its classes or its images are not as expected.
    """
    root = options.folder
    try:
        train, _ = _find_split(root, splits.parse(options.train_split)[0])
        folder, held_out = _find_split(root, split)
        class_names, class_folders = _match_classes(root, train, folder)
        names, labels = _list_classes(folder, class_folders)
    except OSError as error:
        path = listing.printable(error.filename)
        raise InputError(
            f"{path} cannot be listed ({error.strerror}): expected {_layout(root)}."
        ) from error
    if not len(labels):
        raise InputError(
            f"{folder} has no images in class folders: expected {_layout(root)}, each IMAGE with "
            f"one of the extensions {' '.join(EXTENSIONS)}."
        )
    if held_out is not None:
        chosen = np.flatnonzero(listing.held_out(names, labels, options.holdout) == held_out)
        names, labels = names[chosen], labels[chosen]
        if not len(labels):
            raise InputError(
                f"{root} has one image of each class, so that none can be held out for the split "
                f"{split!r}: add images, or add folders train and val."
            )
        if held_out:
            _log.info("%s: %d images are held out as %r (data.holdout).", root, len(labels), split)
    return FolderSource(
        name=listing.printable(str(root)),
        split=split if held_out is not None else listing.printable(folder.name),
        classes=classes.from_ids(class_names).with_labels_of(classes.find(root)),
        image_shape=options.image_shape,
        labels=labels,
        folder=folder,
        class_folders=class_folders,
        names=names,
    )


def _layout(root: Path) -> str:
    """Shows the layout that is expected below `root`."""
    return f"{root}/train/CLASS/IMAGE.jpg and {root}/val/CLASS/IMAGE.jpg, or {root}/CLASS/IMAGE.jpg"


def _find_split(root: Path, split: str) -> tuple[Path, bool | None]:
    """Finds a split.

    Returns:
      The folder that holds its class folders; and, in a root without split folders, whether the
      split is the part held out, otherwise None.
    """
    folders = listing.subfolders(root)
    name = "." if split == "." else splits.find(split, folders)
    if name is None and (root / split).is_dir():  # a folder further down
        name = split
    if name is not None:
        return root / name, None
    kind = splits.kind_of(split)
    nested = [root, *(root / name for name in folders)]
    if not kind or not folders or any(map(_has_splits, nested)):
        raise InputError(
            f"{root} has no folder for split {split!r}: expected {_layout(root)}. A part of "
            "another split is written as 'train[:90%]', the rest as 'train[90%:]'."
        )
    _check_class_names(root, root, folders)
    return root, kind != "train"


def _has_splits(folder: Path) -> bool:
    return any(map(splits.kind_of, listing.subfolders(folder)))


def _match_classes(
    root: Path, train: Path, folder: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names of the training split's classes, and of their folders in `folder`."""
    class_names = listing.class_folders(train)
    if not class_names:
        raise InputError(f"{train} has no class folders: expected {_layout(root)}.")
    if train != root:
        _check_class_names(root, train, class_names)
    found = listing.class_folders(folder)
    unknown = [name for name in found if name not in class_names]
    if unknown:
        raise InputError(
            f"{folder} has the class folder {unknown[0]!r}, which the training split does not "
            f"have: expected {_layout(root)}, with the same classes in both."
        )
    return tuple(class_names), tuple(found.get(name, name) for name in class_names)


def _check_class_names(root: Path, folder: Path, names: Iterable[str]) -> None:
    """Raises InputError where half of the class folders look like splits or side files."""
    names, suspicious = list(names), []
    for name in names:  # a split may be called seg_train, but train/ may hold a class test_tube
        words = re.split(r"[\W\d_]+", name) if folder == root else [name]
        if name.lower() in _NO_CLASSES or any(map(splits.kind_of, words)):
            suspicious.append(name)
    if 2 * len(suspicious) >= len(names):
        raise InputError(
            f"The folders {', '.join(suspicious[:3])} in {folder} look like splits or side files, "
            f"not like classes: expected {_layout(root)}. Name the folders of the splits with "
            "--config.data.train_split and --config.data.eval_split; '.[:90%]' and '.[90%:]' are "
            "parts of the root itself."
        )


def _list_classes(folder: Path, class_folders: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lists the images of every class, bytes[n] below its folder, with their labels int32[n]."""
    names: list[bytes] = []
    counts: list[int] = []
    skipped: Counter[str] = Counter()
    for path in (folder / name for name in class_folders):
        found, others = listing.list_images(path) if path.is_dir() else ([], Counter())
        names += found
        counts.append(len(found))
        skipped += others
    skipped["images outside class folders"] = sum(
        name.lower().endswith(EXTENSIONS) and not listing.is_side_name(name)
        for name in os.listdir(folder)
    )
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in (+skipped).most_common())
    if kinds:
        _log.warning("%s: skipped files that are not images of a class: %s.", folder, kinds)
    return np.array(names, np.bytes_), np.repeat(np.arange(len(counts), dtype=np.int32), counts)
