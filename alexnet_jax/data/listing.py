"""What lies in folders of pictures: classes, names and labels, found by listing alone."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexnet_jax.data.images import EXTENSIONS

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

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._bytes(index))

    def take(self, indices: np.ndarray) -> "FileNames":
        """Returns the names at int[m] `indices`."""
        chosen = [self._bytes(index) for index in indices.tolist()]
        lengths = np.fromiter(map(len, chosen), np.int64, len(chosen))
        return FileNames(b"".join(chosen), np.cumsum(lengths))

    def checksums(self) -> np.ndarray:
        """Returns a number uint64[n] of each name, the same on every machine."""
        each = (
            hashlib.blake2b(self._bytes(index), digest_size=8).digest()
            for index in range(len(self))
        )
        return np.frombuffer(b"".join(each), ">u8")

    def _bytes(self, index: int) -> bytes:
        start = self.ends[index - 1] if index else 0
        return self.joined[start : self.ends[index]]


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the visible folders in `folder`, in ASCII order."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())


def list_pictures(folder: Path, class_names: tuple[str, ...]) -> tuple[FileNames, np.ndarray]:
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


def held_out(names: FileNames, labels: np.ndarray, share: float) -> np.ndarray:
    """Marks about `share` of each class, at least one picture of two: bool[n].

    Which ones goes by the checksums of their names: nothing but a class's own pictures matters, and
    one more among them moves at most one other to or from the held-out part.

    Args:
      names: of the pictures.
      labels: int32[n].
      share: 0 to 1.
    """
    by_class = np.lexsort((names.checksums(), labels))
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.minimum(np.maximum(np.rint(share * counts), 1), counts - 1)
    chosen = np.empty(len(labels), bool)
    chosen[by_class] = rank < np.repeat(wanted, counts)
    return chosen
