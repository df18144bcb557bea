"""Images whose names hold their classes: `cat.0.jpg`."""

import os
import re
from pathlib import Path

from alexnet_jax.data.listing import list_images, printable
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import InputOptions
from alexnet_jax.prepare.labels import Row


def list_rows(options: InputOptions) -> tuple[dict[str, list[Row]], None]:
    """Lists folders of images, one per split; the label is group 1 of `options.pattern`.

    The pattern must match the whole of a name below the split's folder. A split in which no name
    matches has no labels; if only some names match, that is an error.

    Raises:
      InputError: a folder is missing, or its names do not match.
    """
    rows = {
        split: _list_folder(options.folder / location, options)
        for split, location in options.locations.items()
    }
    return rows, None


def _list_folder(folder: Path, options: InputOptions) -> list[Row]:
    """Lists the images at any depth of a folder, by name."""
    try:
        names = [os.fsdecode(name) for name in list_images(folder)[0]]
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be listed ({error.strerror}): name the folder of each "
            "split, as in --config.prepare.splits=\"('train=train',)\"; '.' is the root itself."
        ) from error
    matches = [re.fullmatch(options.pattern, name) for name in names]
    if any(matches) and not all(matches):
        raise InputError(
            f"The name {names[matches.index(None)]!r} in {folder} does not match the pattern "
            f"{options.pattern!r}: set --config.prepare.pattern."
        )
    location = Path(os.path.relpath(folder, options.folder))
    return [
        Row(str(folder), str(location / name), printable(match[1] or "") or None if match else None)
        for name, match in zip(names, matches, strict=True)
    ]
