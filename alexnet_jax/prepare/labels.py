"""From labels as they are written in lists and names to class indices."""

import logging
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)

UNLABELED = -1


class Row(NamedTuple):
    """An image and its label.

    Attributes:
      where: file and line, or folder, for messages.
      name: what it is called: its path below the root, unless it is a part of a file.
      label: as written; None: it has none.
      file: the path below the root of the file that it is a part of; None: its name.
      offset: where it starts in the file.
      size: its bytes; -1: all to the end.
    """

    where: str
    name: str
    label: str | None
    file: str | None = None
    offset: int = 0
    size: int = -1


def class_indices(
    rows: Mapping[str, Sequence[Row]], table: ClassTable | None
) -> tuple[ClassTable, dict[str, np.ndarray]]:
    """Returns the classes and, for each split, the class index of each row, int32[n].

    Labels are ids of the class table or, if all of a split are whole numbers, numbers of its rows.
    Without a table, the classes are the different labels of the first split that has any, in order.

    Raises:
      InputError: a label is of no class, or some rows of a split have a label and others have none.
    """
    labels = {split: _labels(listed) for split, listed in rows.items()}
    own = next(filter(None, labels.values()), set())
    known = table or classes.from_ids(_in_order(own))
    indices = {}
    for split, listed in rows.items():
        names = list(known.ids)
        if table and _are_numbers(labels[split]) and not labels[split] <= set(names):
            names = _numbering(labels[split], len(names))
        index_of: dict[str | None, int] = {name: index for index, name in enumerate(names)}
        index_of[None] = UNLABELED
        unknown = next((row for row in listed if row.label not in index_of), None)
        if unknown:
            raise InputError(
                f"{unknown.where}: the label {unknown.label!r} of {unknown.name} is none of the "
                f"{len(names)} classes, {' to '.join(names[:1] + names[-1:])}."
            )
        indices[split] = np.array([index_of[row.label] for row in listed], np.int32)
    return known, indices


def _labels(rows: Sequence[Row]) -> set[str]:
    """Returns the different labels of a split."""
    without = [row for row in rows if row.label is None]
    if 0 < len(without) < len(rows):
        raise InputError(
            f"{without[0].where}: {without[0].name} has no label, but others have one "
            f"({len(without)} of {len(rows)} have none)."
        )
    return {row.label for row in rows if row.label is not None}


def _are_numbers(labels: set[str]) -> bool:
    return all(re.fullmatch(r"-?\d{1,18}", label) for label in labels)


def _in_order(labels: set[str]) -> list[str]:
    """Returns names in ASCII order, numbers by their value; negative ones stand for no class."""
    if not _are_numbers(labels):
        return sorted(labels)
    return sorted((label for label in labels if int(label) >= 0), key=int)


def _numbering(labels: set[str], count: int) -> list[str]:
    """Returns the number of each class: from 0, or from 1 if 0 does not occur but `count` does."""
    start = int("0" not in labels and str(count) in labels)
    if start:
        _log.info("No label is 0 and one is %d: assuming that labels count from 1.", count)
    return [str(start + index) for index in range(count)]
