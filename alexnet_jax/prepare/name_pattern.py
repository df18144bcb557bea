"""Pictures whose names hold their classes: `cat.0.jpg`."""

import os
import re
from pathlib import Path

from ml_collections import ConfigDict

from alexnet_jax.data import classes
from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Inputs, places, root_of
from alexnet_jax.prepare.lists import Row, to_inputs


def open_inputs(config: ConfigDict) -> Inputs:
    """Lists folders of pictures, one a split; the label is group 1 of `prepare.pattern`.

    The pattern must match the whole of a name below the split's folder. A name that does not match
    has no label where no name of its split does; otherwise it is a mistake.

    Raises:
      InputError: a folder is missing, or its names do not match.
    """
    root = root_of(config)
    pattern = re.compile(config.prepare.pattern)
    rows = {
        split: _list_folder(root, root / place, pattern) for split, place in places(config).items()
    }
    return to_inputs(root, rows, classes.find(root, config.prepare.class_table))


def _list_folder(root: Path, folder: Path, pattern: re.Pattern[str]) -> list[Row]:
    """Lists the pictures at any depth of a folder, by name."""
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}: say where each split lies, as "
            "--config.prepare.splits=\"('train=train',)\"; '.' is the root itself."
        )
    names = sorted(
        os.path.join(os.path.relpath(parent, folder), name)
        for parent, _, files in os.walk(folder)
        for name in files
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    )
    names = [os.path.normpath(name) for name in names]
    matches = {name: pattern.fullmatch(name) for name in names}
    unmatched = [name for name in names if not matches[name]]
    if unmatched and len(unmatched) < len(names):
        raise InputError(
            f"The name {unmatched[0]!r} in {folder} does not match the pattern "
            f"{pattern.pattern!r}: set --config.prepare.pattern."
        )
    rows = []
    for name in names:
        match = matches[name]
        path = os.path.relpath(folder / name, root)
        rows.append(Row(str(folder), path, match[1] if match else None))
    return rows
