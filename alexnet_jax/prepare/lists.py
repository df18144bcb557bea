"""List files and tables: one image per line, with or without its label."""

import csv
import glob
import io
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.images import EXTENSIONS
from alexnet_jax.data.listing import printable, read_file
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import UNLABELED, FileList, InputOptions, Inputs

_log = logging.getLogger(__name__)

# Common column names, in the order in which they are looked for.
_PATH_COLUMNS = (
    *("file", "filename", "file_name", "path", "filepath"),
    *("image", "image_path", "image_id", "imageid", "id"),
)
_LABEL_COLUMNS = ("label", "class", "class_id", "target", "category", "wnid", "synset")
_INDEX_COLUMNS = ("", "id", "index", "idx", "unnamed: 0")
_NUMBER = re.compile(r"(-?\d+)(?:\.0*)?")


class Row(NamedTuple):
    """One line of a list.

    Attributes:
      where: file and line, for messages.
      path: of the image, below the root.
      label: as written; None: the line has none.
    """

    where: str
    path: str
    label: str | None


def open_inputs(options: InputOptions) -> Inputs:
    """Lists the images of list files, one file per split: prepare.splits=('train=train.txt',).

    Raises:
      InputError: a list cannot be read, or a label in it is none of the classes.
    """
    root = options.folder
    rows = {
        split: read_rows(root / location, root, options.columns)
        for split, location in options.locations.items()
    }
    return to_inputs(options, rows)


def to_inputs(options: InputOptions, rows: Mapping[str, Sequence[Row]]) -> Inputs:
    """Returns the images of lists whose paths are relative to the root.

    Raises:
      InputError: see `class_indices`.
    """
    root = options.folder
    table, labels = class_indices(rows, classes.find(root, options.class_table))
    splits = {
        split: FileList(
            name=str(root),
            split=split,
            classes=table,
            image_shape=options.data.image_shape,
            labels=labels[split],
            root=root,
            names=np.array([os.fsencode(row.path) for row in listed]),
        )
        for split, listed in rows.items()
    }
    return Inputs(table, splits, str(root))


# ---- Labels


def class_indices(
    rows: Mapping[str, Sequence[Row]], table: ClassTable | None
) -> tuple[ClassTable, dict[str, np.ndarray]]:
    """Returns the classes and, for each split, the class indices int32[n] of its labels.

    Labels are ids of the class table or, where all of them are whole numbers, class indices.
    Without a table, the classes are the labels of the first split that has any, in order.

    Raises:
      InputError: a label is out of range, of no class, or missing on some lines.
    """
    labels = [_labels(listed) for listed in rows.values()]
    every = set[str]().union(*labels)
    own = next(filter(None, labels), set[str]())
    numbered = all(map(_NUMBER.fullmatch, every)) and not (table and every <= set(table.ids))
    if numbered:
        names = _numbering(set(map(_whole, every)), set(map(_whole, own)), table)
    else:
        names = list(table.ids) if table else sorted(own)
    index_of: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    index_of[None] = UNLABELED

    def index(row: Row) -> int:
        label = str(_whole(row.label)) if numbered and row.label is not None else row.label
        if label not in index_of:
            raise InputError(
                f"{row.where}: the label {row.label!r} of {row.path} is none of the {len(names)} "
                f"classes, {names[0]} to {names[-1]}."
            )
        return index_of[label]

    indices = {
        split: np.fromiter(map(index, listed), np.int32, len(listed))
        for split, listed in rows.items()
    }
    return table or classes.from_ids(names), indices


def _labels(rows: Sequence[Row]) -> set[str]:
    """Returns the different labels of a list.

    Raises:
      InputError: some lines have a label and others have none.
    """
    without = [row for row in rows if row.label is None]
    if 0 < len(without) < len(rows):
        raise InputError(
            f"{without[0].where}: {without[0].path} has no label, while others of the list have "
            f"one ({len(without)} of {len(rows)} have none)."
        )
    return {row.label for row in rows if row.label is not None}


def _whole(label: str) -> int:
    return int(label.partition(".")[0])


def _numbering(every: set[int], own: set[int], table: ClassTable | None) -> list[str]:
    """Returns the number of each class, in order.

    Numbers count the classes from 0; from 1 where 0 does not occur and the class table, if there is
    one, is as long as the highest. Without a table, numbers with wide gaps are names.

    Args:
      every: the numbers that occur.
      own: those of the split that defines the classes.
      table: the class table.
    """
    start = int(0 not in every and (table is None or len(table.ids) in every))
    count = len(table.ids) if table else max(own, default=0) + 1 - start
    if not table and count > 2 * len(own):
        _log.info("The labels are numbers with wide gaps: assumed to be names of classes.")
        return [str(number) for number in sorted(own) if number >= 0]
    if start:
        _log.info("No label is 0: assumed that labels count the classes from 1.")
    return [str(number) for number in range(start, start + count)]


# ---- Rows


class _Table(NamedTuple):
    """The cells of a list.

    Attributes:
      path: of the list.
      names: of the columns; their numbers from 1 where there is no header.
      lines: the number of each row's line.
      rows: the cells of each row.
    """

    path: Path
    names: list[str]
    lines: list[int]
    rows: list[list[str]]

    def column(self, index: int) -> list[str]:
        """Returns the cells of a column."""
        return [row[index] for row in self.rows]

    def first_of(self, wanted: Iterable[str]) -> int | None:
        """Returns the first column that has one of these names, in their order."""
        names = [name.lower() for name in self.names]
        return next((names.index(name) for name in wanted if name in names), None)

    def unclear(self, what: str) -> InputError:
        """Returns the error that says which columns there are."""
        return InputError(
            f"{self.path} has the columns {', '.join(self.names)}, and {what}: name those of path "
            "and label, as in --config.prepare.columns=\"('file', 'label')\"."
        )


def read_rows(path: Path, root: Path, columns: Sequence[str] = ()) -> list[Row]:
    """Reads a list or a table, delimited by whitespace, tabs, commas or semicolons.

    Args:
      path: the list.
      root: the folder that paths are relative to.
      columns: names of the columns of path and label, or their numbers from 1; (): the column of
        file names and the label column are recognized, and logged.

    Raises:
      InputError: the file cannot be read, names no image, or its columns are not recognized.
    """
    table = _read_table(path, root)
    columns = [name.lower() for name in columns]
    missing = [name for name in columns if table.first_of([name]) is None]
    if missing:
        raise table.unclear(f"none is named {missing[0]!r}")
    is_image = [all(map(_is_image, table.column(index))) for index in range(len(table.names))]
    image = _image_column(table, root, columns, is_image)
    labels = _label_column(table, image, columns, is_image)
    paths = table.column(image)
    suffix = _missing_suffix(root / paths[0])
    return [
        Row(f"{path}, line {number}", name + suffix, printable(label) or None)
        for number, name, label in zip(table.lines, paths, labels, strict=True)
    ]


def _read_table(path: Path, root: Path) -> _Table:
    try:
        text = read_file(path).decode("utf-8-sig")
        is_table = path.suffix.lower() in (".csv", ".tsv")
        cells = list(_split_lines(list(io.StringIO(text, newline=None)), root, is_table))
    except OSError as error:
        raise InputError(
            f"The list {path} cannot be read ({error.strerror}): name the list of each split, as "
            "in --config.prepare.splits=\"('train=train.txt', 'val=val.txt')\"."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a list of images in UTF-8: {error}.") from error
    names = cells[0][1] if cells else []
    known = {name.lower() for name in names} & {*_PATH_COLUMNS, *_LABEL_COLUMNS}
    if any(map(_is_image, names)) or not (known or is_table):
        names = [str(number + 1) for number in range(len(names))]
    else:
        del cells[0]
    if not cells:
        raise InputError(f"The list {path} names no image.")
    for number, row in cells:
        if len(row) != len(names):
            raise InputError(
                f"{path}, line {number}: has {len(row)} columns, but the first has {len(names)}."
            )
    return _Table(path, names, *map(list, zip(*cells, strict=True)))


def _split_lines(lines: list[str], root: Path, is_table: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields the number and the cells of each line that is not blank."""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    delimiter = _delimiter(last, root)
    if is_table and delimiter in ("", " "):
        delimiter = max("\t,;|", key=lines[0].count)
    if delimiter in ("", " "):
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not delimiter:
                cells = [line]
            else:  # a path in front of its label may hold spaces
                cells = line.split() if _is_image(last) else line.rsplit(maxsplit=1)
            if line:
                yield number, cells
        return
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        if any(row):
            yield reader.line_num, [cell.strip() for cell in row]


def _delimiter(line: str, root: Path) -> str:
    """Returns what delimits the cells of a line; "": nothing, it is one path."""
    if os.path.isfile(root / line):
        return ""
    for delimiter in "\t,;|":
        if delimiter in line and any(map(_is_image, line.split(delimiter))):
            return delimiter
    return " " if any(map(_is_image, line.split())) else max("\t,;| ", key=line.count)


def _is_image(cell: str) -> bool:
    return cell.strip(" \"'").lower().endswith(EXTENSIONS)


def _image_column(
    table: _Table, root: Path, columns: Sequence[str], is_image: Sequence[bool]
) -> int:
    """Returns the column of paths: the one named, the only one of image names, or a known one."""
    if columns:
        wanted = table.first_of(columns[:1])
    elif sum(is_image) == 1:
        wanted = is_image.index(True)
    else:
        wanted = table.first_of(_PATH_COLUMNS)
    if wanted is None and (os.path.isfile(p := root / table.rows[0][0]) or _missing_suffix(p)):
        wanted = 0
    if wanted is None:
        raise table.unclear("none is known to hold paths")
    return wanted


def _label_column(
    table: _Table, image: int, columns: Sequence[str], is_image: Sequence[bool]
) -> list[str]:
    """Returns the labels, empty where there are none.

    Raises:
      InputError: several columns may hold them.
    """
    wanted = table.first_of(columns[1:] if columns else _LABEL_COLUMNS)
    if wanted is None and not columns:
        others = [i for i in range(len(table.names)) if i != image and not is_image[i]]
        others = _without(others, lambda i: table.names[i].lower() in _INDEX_COLUMNS)
        if (labels := _one_hot(table, others)) is not None:
            return labels
        others = _without(others, lambda i: _counts(table.column(i)))
        if len(others) > 1:
            raise table.unclear("several of them may hold labels")
        wanted = next(iter(others), None)
    if wanted is None:
        return [""] * len(table.rows)
    _log.info("%s: labels are in the column %s.", table.path, table.names[wanted])
    return table.column(wanted)


def _without(columns: Sequence[int], is_index: Callable[[int], bool]) -> list[int]:
    """Returns the columns that do not number the rows, or the last one if all of them do."""
    return [column for column in columns if not is_index(column)] or list(columns[-1:])


def _counts(cells: Sequence[str]) -> bool:
    return any(cells == [str(start + i) for i in range(len(cells))] for start in (0, 1))


def _one_hot(table: _Table, columns: Sequence[int]) -> list[str] | None:
    """Returns the name of the column with the 1 of each row; None where it is not 1 among 0s."""
    names = [table.names[column] for column in columns]
    rows = [
        [_NUMBER.fullmatch(row[column]) and _whole(row[column]) for column in columns]
        for row in table.rows
    ]
    if len(names) < 2 or not all(set(row) <= {0, 1} and row.count(1) == 1 for row in rows):
        return None
    _log.info("%s: labels are the one-hot columns %s.", table.path, ", ".join(names))
    return [names[row.index(1)] for row in rows]


def _missing_suffix(path: Path) -> str:
    """Returns the extension of the image file that a path without one stands for, else ""."""
    if _is_image(path.name) or path.is_file():
        return ""
    found = sorted(file.name for file in path.parent.glob(f"{glob.escape(path.name)}.*"))
    return next((name[len(path.name) :] for name in found if _is_image(name)), "")
