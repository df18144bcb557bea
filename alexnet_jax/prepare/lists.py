"""List files and tables: a picture a line, with or without its label."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import UNLABELED, FilePart, Inputs, places, root_of

# Column names of the field, in the order in which they are looked for.
_PICTURE_COLUMNS = (
    "file",
    "filename",
    "file_name",
    "path",
    "filepath",
    "image",
    "image_path",
    "id",
)
_LABEL_COLUMNS = ("label", "class", "class_id", "target", "category", "wnid", "synset")


class Row(NamedTuple):
    """One line of a list.

    Attributes:
      where: file and line, for messages.
      path: of the picture, as written.
      label: as written; None: the line has none.
    """

    where: str
    path: str
    label: str | None


def open_inputs(config: ConfigDict) -> Inputs:
    """Lists the pictures of list files, one file a split: prepare.splits=('train=train.txt',).

    Raises:
      InputError: a list cannot be read, or a label in it is none of the classes.
    """
    root = root_of(config)
    rows = {
        split: read_rows(root / place, config.prepare.columns)
        for split, place in places(config).items()
    }
    table = classes.find(root, config.prepare.class_table)
    return to_inputs(root, rows, table)


def to_inputs(root: Path, rows: dict[str, list[Row]], table: ClassTable | None) -> Inputs:
    """Turns written labels into class indices.

    Labels that are all whole numbers are indices from 0. Other labels are ids of the class table;
    without one, the classes are the labels of the first split in ASCII order.

    Raises:
      InputError: a label is out of range, of no class, or missing on some lines.
    """
    for listed in rows.values():
        _refuse_gaps(listed)
    labels = [row.label for split in rows.values() for row in split if row.label is not None]
    numbered = all(label.isdecimal() for label in labels)
    if table is None:
        first = {row.label for row in next(iter(rows.values())) if row.label is not None}
        table = classes.from_ids(_numbers(first) if numbered else sorted(first))
    known = {name: index for index, name in enumerate(table.ids)}
    if numbered:
        known = {str(index): index for index in range(len(table.ids))}
    splits = {
        split: [
            FilePart(row.path, _index(row, known, numbered), str(root / row.path)) for row in listed
        ]
        for split, listed in rows.items()
    }
    return Inputs(table, splits)


def _refuse_gaps(rows: list[Row]) -> None:
    """Raises InputError where some lines of a list have a label and others none."""
    without = [row for row in rows if row.label is None]
    if 0 < len(without) < len(rows):
        raise InputError(
            f"{without[0].where}: {without[0].path} has no label, and others of the list have "
            f"({len(without)} of {len(rows)} have none)."
        )


def _numbers(labels: set[str]) -> list[str]:
    """Returns the ids "0", "1", ... up to the highest label."""
    return [str(index) for index in range(max(map(int, labels), default=-1) + 1)]


def _index(row: Row, known: dict[str, int], numbered: bool) -> int:
    if row.label is None:
        return UNLABELED
    label = str(int(row.label)) if numbered else row.label
    if label not in known:
        known_ones = f"0 to {len(known) - 1}" if numbered else f"{len(known)} known classes"
        raise InputError(
            f"{row.where}: the label {row.label!r} of {row.path} is none of the {known_ones}."
        )
    return known[label]


def read_rows(path: Path, columns: tuple[str, ...] = ()) -> list[Row]:
    """Reads a list file: lines "path label", "path,label" or "path", or a CSV with a header.

    Args:
      path: the list; a table where it ends in .csv or .tsv.
      columns: the table's columns of the path and of the label; (): those of a known name.

    Raises:
      InputError: the file cannot be read or has no picture.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() in (".csv", ".tsv"):
                rows = _of_table(path, file.read().splitlines(), columns)
            else:
                rows = [
                    _of_line(f"{path}, line {number}", line)
                    for number, line in enumerate(file, start=1)
                    if line.strip()
                ]
    except OSError as error:
        raise InputError(
            f"The list {path} cannot be read ({error.strerror}): name the list of each split, as "
            "--config.prepare.splits=\"('train=train.txt', 'val=val.txt')\"."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no list of pictures: {error}.") from error
    if not rows:
        raise InputError(f"The list {path} names no picture.")
    return rows


def _of_line(where: str, line: str) -> Row:
    """Splits a line at its last comma or space; paths may hold spaces."""
    text = line.strip()
    if text.lower().endswith(EXTENSIONS):  # a path alone
        return Row(where, text, None)
    path, comma, label = text.rpartition(",")
    if not comma:
        *head, label = text.rsplit(maxsplit=1)
        path = head[0] if head else ""
    if not path.strip():
        raise InputError(f"{where}: {text!r} is neither 'path label' nor 'path,label'.")
    return Row(where, path.strip(), label.strip())


def _of_table(path: Path, lines: list[str], columns: tuple[str, ...]) -> list[Row]:
    """Reads a CSV, of commas or semicolons; without a header its first two columns are taken."""
    plain = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    delimiter = "\t" if path.suffix.lower() == ".tsv" else plain
    table = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    if not table:
        return []
    header = [cell.strip().lower() for cell in table[0]]
    if any(cell.endswith(EXTENSIONS) for cell in header):
        picture, label, first = 0, 1 if len(header) > 1 else None, 0
    else:
        picture, label, first = *_columns(path, header, columns), 1
    rows = []
    for number, row in enumerate(table[first:], start=first + 1):
        where = f"{path}, row {number}"
        if len(row) != len(header):
            raise InputError(f"{where}: has {len(row)} cells where the first has {len(header)}.")
        text = row[label].strip() if label is not None else ""
        rows.append(Row(where, row[picture].strip(), text or None))
    return rows


def _columns(path: Path, header: Sequence[str], columns: tuple[str, ...]) -> tuple[int, int | None]:
    """Finds the columns of path and label in a header."""
    wanted: list[tuple[str, ...]] = [(name.lower(),) for name in columns] or [
        _PICTURE_COLUMNS,
        _LABEL_COLUMNS,
    ]
    found = [next((name for name in names if name in header), None) for names in wanted]
    if found[0] is None or (columns and None in found):
        missing = [names[0] for names, name in zip(wanted, found, strict=True) if name is None]
        none = f"no column {' or '.join(missing)}, but " if columns else ""
        raise InputError(
            f"The table {path} has {none}the columns {', '.join(header)}: say which hold path and "
            "label, as --config.prepare.columns=\"('file', 'label')\"."
        )
    label = found[1] if len(found) > 1 else None
    return header.index(found[0]), None if label is None else header.index(label)
