"""Images in folders: ROOT/SPLIT/CLASS/IMAGE.jpg, or ROOT/CLASS/IMAGE.jpg with a part held out."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data import classes, images, listing, splits
from alexnet_jax.data.source import DataOptions, Source
from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)

# Folders next to images, or above them, that are never classes.
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

    def path(self, index: int) -> bytes:
        class_folder = self.folder / self.class_folders[self.labels[index]]
        return os.path.join(os.fsencode(class_folder), self.names[index])


def open_split(options: DataOptions, split: str, class_names: Sequence[str] = ()) -> FolderSource:
    """Lists the images of one split; the class indices are those of the training split.

    Where the root has no split folders but class folders, the share data.holdout of each class is
    the validation split, the rest the training split (`splits.held_out`).

    Args:
      options: the dataset.
      split: the name of a folder in the root, a name of the same kind, or '.', the root itself.
      class_names: the classes to number instead, of which some may have no folder; then the root
        needs no training split.

    Raises:
      InputError: the root, the split, its classes or its images are not as expected.
    """
    root = options.folder
    try:
        known = class_names or _training_classes(root, splits.parse(options.train_split)[0])
        folder, held_out = _find_split(root, split)
        whose = "the model" if class_names else "the training split"
        class_folders = _match_classes(root, folder, known, whose)
        names, labels = _list_classes(folder, class_folders)
    except OSError as error:
        path = listing.printable(error.filename)
        raise _unexpected(root, f"{path} cannot be listed ({error.strerror})") from error
    if not len(labels):
        extensions = " ".join(images.EXTENSIONS)
        raise _unexpected(root, f"{folder} has no images ({extensions}) in class folders")
    if held_out is not None:
        chosen = splits.held_out(names, labels, options.holdout) == held_out
        names, labels = names[chosen], labels[chosen]
        _log.info("%s: %d images are the split %r (data.holdout).", root, len(labels), split)
        if not len(labels):
            raise _unexpected(root, f"{root} has one image per class and thus none for {split!r}")
    else:
        split = listing.printable(folder.name)
    table = classes.from_ids(known).with_labels_of(classes.find(root))
    fields = (listing.printable(str(root)), split, table, options.image_shape, labels)
    return FolderSource(*fields, folder, class_folders, names)


def _unexpected(root: Path, problem: str, advice: str = "") -> InputError:
    """Returns an error that shows the layout that is expected below `root`."""
    return InputError(
        f"{problem}: expected {root}/train/CLASS/IMAGE.jpg and {root}/val/CLASS/IMAGE.jpg with the "
        f"same classes, or {root}/CLASS/IMAGE.jpg.{advice}"
    )


def _find_split(root: Path, split: str) -> tuple[Path, bool | None]:
    """Finds a split.

    Returns:
      The folder that holds its class folders; and, in a root without split folders, whether the
      split is the part held out, otherwise None.
    """
    folders = listing.subfolders(root)
    folder = root / (splits.find(split, [*folders, "."]) or split)  # or a folder further down
    if folder.is_dir():
        return folder, None
    kind = splits.kind_of(split)
    nested = [name for parent in folders for name in listing.subfolders(root / parent)]
    if not kind or not folders or any(map(splits.kind_of, folders + nested)):
        advice = " Parts of a split are written as 'train[:90%]' and 'train[90%:]'."
        raise _unexpected(root, f"{root} has no folder for split {split!r}", advice)
    _check_class_names(root, root, folders)
    return root, kind != "train"


def _training_classes(root: Path, split: str) -> tuple[str, ...]:
    """Returns the names of the training split's classes."""
    train, _ = _find_split(root, split)
    class_names = listing.class_folders(train)
    if not class_names:
        raise _unexpected(root, f"{train} has no class folders")
    if train != root:
        _check_class_names(root, train, class_names)
    return tuple(class_names)


def _match_classes(
    root: Path, folder: Path, class_names: Sequence[str], whose: str
) -> tuple[str, ...]:
    """Returns the names of the folders of classes in `folder`; `whose` says where those are from.

    Raises:
      InputError: `folder` has other classes, too.
    """
    found = listing.class_folders(folder)
    if not found.keys() <= set(class_names):
        odd = classes.difference(class_names, tuple(found))
        raise _unexpected(root, f"{folder} has other classes than {whose} ({odd})")
    return tuple(found.get(name, name) for name in class_names)


def _check_class_names(root: Path, folder: Path, names: Collection[str]) -> None:
    """Raises InputError where half of the class folders look like splits or side files."""

    def is_suspicious(name: str) -> bool:
        # A split may be called seg_train, but train/ may hold a class test_tube.
        words = re.split(r"[\W\d_]+", name) if folder == root else [name]
        return name.lower() in _NO_CLASSES or any(map(splits.kind_of, words))

    suspicious = list(filter(is_suspicious, names))
    if 2 * len(suspicious) >= len(names):
        raise _unexpected(
            root,
            f"{folder} has folders that look like splits or side files, not like classes "
            f"({', '.join(suspicious[:3])})",
            " Name the folders of the splits with --config.data.train_split and "
            "--config.data.eval_split; '.[:90%]' and '.[90%:]' are parts of the root itself.",
        )


def _list_classes(folder: Path, class_folders: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Lists the images of every class, bytes[n] below its folder, with their labels int32[n]."""
    paths = [folder / name for name in class_folders]
    listed = [listing.list_images(path) if path.is_dir() else ([], Counter()) for path in paths]
    outside = (name.lower() for name in os.listdir(folder) if not listing.is_side_name(name))
    count = sum(name.endswith(images.EXTENSIONS) for name in outside)
    skipped = Counter({"images outside class folders": count})
    if skipped := sum((others for _, others in listed), skipped):
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in skipped.most_common())
        _log.warning("%s: skipped files that are not images of a class: %s.", folder, kinds)
    counts = [len(names) for names, _ in listed]
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return np.array([name for names, _ in listed for name in names], np.bytes_), labels
