"""The contents of folders of images: classes and file names, found only by listing."""

import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.errors import InputError

# Side files and folders of operating systems, storage boxes and archives, in lower case; names
# that start with a dot are skipped too. None of them is an image or a class.
SIDE_NAMES = {
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "@recycle", "@tmp",
    "@recently-snapshot", "@__thumb", "#recycle", "#snapshot", "~snapshot", "lost+found",
    "$recycle.bin", "recycler", "system volume information", "network trash folder",
    "temporary items", "__pycache__",
}  # fmt: skip


def is_side_name(name: str) -> bool:
    """Returns whether a file or folder is hidden or one of SIDE_NAMES."""
    return name.startswith(".") or name.lower() in SIDE_NAMES


def printable(path: str | bytes) -> str:
    """Returns a path as text to print and store: in Unicode form NFC, with other bytes escaped.

    Control characters are escaped too: a terminal would act on them, and TFDS stores one class per
    line.
    """
    text = unicodedata.normalize("NFC", os.fsencode(path).decode(errors="backslashreplace"))
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in `folder` in ASCII order, without side folders."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if not is_side_name(e.name) and e.is_dir())


def class_folders(folder: Path) -> dict[str, str]:
    """Returns the folders in `folder` by class name, which is the same in all Unicode forms.

    Raises:
      InputError: two folders have the same class name.
    """
    found: dict[str, str] = {}
    for name in subfolders(folder):
        if printable(name) in found:
            raise InputError(
                f"{folder} has two folders named {printable(name)!r} that differ only in their "
                "Unicode form (NFC and NFD): merge them."
            )
        found[printable(name)] = name
    return dict(sorted(found.items(), key=lambda item: item[0].encode()))


def list_images(
    folder: Path, extensions: Iterable[str] = EXTENSIONS
) -> tuple[list[bytes], Counter[str]]:
    """Lists the images at any depth of a folder; links are followed, but no folder entered twice.

    Only folders cost a call to the file system each; files are recognized by the listing.

    Args:
      folder: where they are.
      extensions: of images, in lower case.

    Returns:
      The paths below `folder` in the order of their bytes, and how many other files there are of
      each extension, without side files.
    """
    top, parent = os.fsencode(folder), folder.parent.resolve()
    visited = {os.stat(ancestor)[1:3] for ancestor in (parent, *parent.parents)}  # inode, device
    images: list[bytes] = []
    skipped: Counter[str] = Counter()
    endings = tuple(map(os.fsencode, extensions))
    for path, folders, files in os.walk(top, onerror=_raise, followlinks=True):
        if (identity := os.stat(path)[1:3]) in visited:
            folders.clear()
            continue
        visited.add(identity)
        # Sorted, so that of two links to one folder the same one is always entered.
        folders[:] = sorted(name for name in folders if not is_side_name(os.fsdecode(name)))
        for name in files:
            if name.lower().endswith(endings) and not name.startswith(b"."):
                images.append(os.path.join(path, name)[len(top) + 1 :])
            elif not is_side_name(os.fsdecode(name)):
                extension = printable(os.path.splitext(name)[1]).lower()
                skipped[extension or "without extension"] += 1
    return sorted(images), skipped


def _raise(error: OSError) -> None:
    raise error


def read_file(path: str | bytes | Path, offset: int = 0, size: int = -1) -> bytes:
    """Returns the contents of a regular file, or `size` bytes of them from `offset` on.

    Raises:
      OSError: the file cannot be read, or is a FIFO, socket or device, which could block forever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        file.seek(offset)
        return file.read(size)


def contents(path: str | bytes | Path, offset: int = 0, size: int = -1) -> bytes:
    """Returns what `read_file` does, empty where it cannot be read."""
    try:
        return read_file(path, offset, size)
    except (OSError, ValueError):  # a name with a NUL is a ValueError
        return b""
