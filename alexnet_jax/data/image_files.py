"""Image files without labels: what a command line or a notebook names, as a source."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data import classes, images, listing
from alexnet_jax.data.source import Source
from alexnet_jax.errors import InputError


class ImageFiles(Source):
    """Image files as examples without classes, whose labels are all 0.

    Attributes:
      paths: the files; one that is missing or damaged is unreadable, as in every source.
    """

    def __init__(self, paths: Sequence[Path], image_shape: tuple[int, int, int], resize: str):
        labels = np.zeros(len(paths), np.int32)
        super().__init__("images", "all", classes.from_ids(()), image_shape, labels, resize=resize)
        self.paths = paths

    def path(self, index: int) -> bytes:
        return os.fsencode(self.paths[index])

    def decode_into(self, out: np.ndarray, data: Any) -> None:
        size, _, channels = self.image_shape
        pixels = images.decode(data, channels, images.every_format())
        out[...] = images.RESIZERS[self.resize](pixels, size)


def list_image_files(arguments: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Lists the image files that arguments name, in the order of the arguments.

    Args:
      arguments: each an image, a folder, a glob such as "photos/**/*.jpg", or a list: a .txt file
        with a path on each line, relative to its own folder or to the current one. Folders are
        listed with all folders below them. The files of a folder or glob are those with the
        extension of an image, in natural order: frame2.jpg before frame10.jpg.

    Raises:
      InputError: an argument names nothing, or no images.
    """
    if not arguments:
        raise InputError("No images are given: name images, folders, globs or lists of images.")
    return [path for argument in arguments for path in _list_argument(os.fspath(argument))]


def _list_argument(argument: str) -> list[Path]:
    path = Path(os.path.expanduser(argument))
    try:
        if argument and path.is_dir():
            folder = path.resolve()  # which "." and ".." need
            names, _ = listing.list_images(folder, images.every_extension())
            listed = (path / os.fsdecode(name) for name in names)
            found, problem = sorted(listed, key=_natural_order), "has no images"
        elif path.is_file():
            found, problem = [path], "names no file that exists"
            if path.suffix.lower() == ".txt":
                found = _read_list(path)
        else:
            matches = map(Path, glob.iglob(str(path), recursive=True))
            found = sorted(filter(_is_image, matches), key=_natural_order)
            problem = "matches no images" if glob.has_magic(argument) else "is no file or folder"
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        problem = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise InputError(f"{listing.printable(argument)} {problem}.") from error
    if not found:
        raise InputError(
            f"{listing.printable(argument)} {problem}: name an image, a folder or glob of images "
            "(such as .jpg, .png), or a .txt file with a path on each line."
        )
    return found


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(images.every_extension()) and path.is_file()


def _read_list(path: Path) -> list[Path]:
    """Returns the files on the lines of a list, [] if none of them exists."""
    text = listing.read_file(path).decode("utf-8-sig", "surrogateescape")
    lines = filter(None, map(str.strip, text.split("\n")))
    names = [Path(os.path.expanduser(line)) for line in lines]
    near = [path.parent / name for name in names]
    found = [a if a.exists() else b for a, b in zip(near, names, strict=True)]
    return found if any(file.is_file() for file in found) else []


def _natural_order(path: Path) -> tuple[list[str | int], str]:
    """Returns a key that sorts numbers in names by value."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if part.isdecimal() else part for part in parts], str(path)
