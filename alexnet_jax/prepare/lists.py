"""Labels from text: lists and tables with one image per line, and names such as `cat.0.jpg`."""

import csv
import glob
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexnet_jax.data import images, listing
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import InputOptions, Row

_log = logging.getLogger(__name__)

# Common column names, in the order in which they are looked for.
_PATH_COLUMNS = (
    "file", "filename", "file_name", "path", "filepath",
    "image", "image_path", "image_id", "imageid", "id",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "class", "class_id", "target", "category", "wnid", "synset")
_INDEX_COLUMNS = ("", "id", "index", "idx", "unnamed: 0")
_WHOLE = re.compile(r"(?<=\d)\.0+$")  # of an integer, as MXNet and pandas write it
_DELIMITERS = "\t,;|"

_Cells = Sequence[str]
_Columns = Mapping[str, _Cells]


def list_rows(options: InputOptions) -> tuple[dict[str, list[Row]], None]:
    """Reads list files, as in prepare.splits=('train=train.txt',), or folders of named images.

    Raises:
      InputError: a list or folder cannot be read, or has no labels where it should.
    """
    root, rows = options.data.folder, {}
    for split, location in options.locations.items():
        if options.data.source == "pattern":
            rows[split] = _list_folder(root, location, options.pattern)
        else:
            rows[split] = read_rows(root / location, root, options.columns)
    return rows, None


def _list_folder(root: Path, location: str, pattern: str) -> list[Row]:
    """Lists the images at any depth of a folder, by name; the label is group 1 of the pattern.

    The pattern must match the entire path below the folder; an image without a match has no label.

    Raises:
      InputError: the folder is missing.
    """
    folder = root / location
    try:
        names = [os.fsdecode(name) for name in listing.list_images(folder)[0]]
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be listed ({error.strerror}): name the folder of each "
            "split, as in --config.prepare.splits=\"('train=train',)\"; '.' is the root itself."
        ) from error
    below = Path(os.path.relpath(folder, root))
    return [
        Row(str(folder), str(below / name), listing.printable(match[1] or "") if match else "")
        for name in names
        for match in [re.fullmatch(pattern, name)]
    ]


def read_rows(path: Path, root: Path, wanted: Sequence[str] = ()) -> list[Row]:
    """Reads a list or a table, delimited by whitespace, tabs, commas, semicolons or bars.

    Args:
      path: the list.
      root: the folder that paths are relative to.
      wanted: the columns of path and label, by name or by number from 1; (): the column of image
        names and the only other one, or those with common names.

    Raises:
      InputError: the file cannot be read, has no images, or its columns are not recognized.
    """
    lines, columns = _read_columns(path, root)
    try:
        paths, labels = _choose_columns(columns, wanted, root)
    except LookupError as error:
        raise InputError(
            f"{path} has the columns {', '.join(columns)}, and it is unclear which hold path and "
            "label: name them, as in --config.prepare.columns=\"('file', 'label')\"."
        ) from error
    suffix = _missing_suffix(root / paths[0]) or ""
    return [
        Row(f"{path}, line {line}", name + suffix, _WHOLE.sub("", listing.printable(label)))
        for line, name, label in zip(lines, paths, labels, strict=True)
    ]


def _read_columns(path: Path, root: Path) -> tuple[list[int], _Columns]:
    """Returns the line number of each row, and the columns, named 1, 2, ... without a header."""
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    try:
        text = io.StringIO(listing.read_file(path).decode("utf-8-sig"), newline=None)
        table = _split_lines(list(text), root, is_csv)
    except OSError as error:
        raise InputError(
            f"The list {path} cannot be read ({error.strerror}): name the list of each split, as "
            "in --config.prepare.splits=\"('train=train.txt', 'val=val.txt')\"."
        ) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it in UTF-8.") from error
    names = table[0][1] if table else []
    known = {name.lower() for name in names} & {*_PATH_COLUMNS, *_LABEL_COLUMNS}
    if (is_csv or known) and not any(map(_is_image, names)):
        del table[0:1]
    else:
        names = [str(number + 1) for number in range(len(names))]
    if not table:
        raise InputError(f"The list {path} has no images.")
    for line, row in table:
        if len(row) != len(names):
            raise InputError(f"{path}, line {line}: {len(row)} columns instead of {len(names)}.")
    lines, rows = zip(*table, strict=True)
    return list(lines), dict(zip(names, zip(*rows, strict=True), strict=True))


def _split_lines(lines: list[str], root: Path, is_csv: bool) -> list[tuple[int, list[str]]]:
    """Returns the line number and the cells of each line that is not blank.

    The delimiter is the one that isolates an image name in the last line.
    """
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    found = [d for d in _DELIMITERS if d in last and any(map(_is_image, last.split(d)))]
    is_path = os.path.isfile(root / last)
    if (found or is_csv) and last and not is_path:
        delimiter = found[0] if found else max(_DELIMITERS, key=lines[0].count)
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
        return [(reader.line_num, [cell.strip() for cell in row]) for row in reader if any(row)]
    # A path may contain spaces if it is the only cell or comes before the label.
    most_splits = 0 if is_path else -1 if _is_image(last) else 1
    return [
        (number, line.strip().rsplit(maxsplit=most_splits))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _is_image(cell: str) -> bool:
    return cell.strip(" \"'").lower().endswith(images.EXTENSIONS)


def _choose_columns(columns: _Columns, wanted: _Cells, root: Path) -> tuple[_Cells, _Cells]:
    """Returns the cells of the path and of the label, "" where there is none.

    Raises:
      LookupError: it is unclear which columns hold them.
    """
    name_of = {name.lower(): name for name in columns}
    if wanted:
        path, *labels = (columns[name_of[name.lower()]] for name in wanted)
        return path, labels[0] if labels else [""] * len(path)
    image_columns = [name for name, cells in columns.items() if all(map(_is_image, cells))]
    known = [name_of[name] for name in _PATH_COLUMNS if name in name_of]
    first = next(iter(columns))
    if _missing_suffix(root / columns[first][0]) is not None:
        known.append(first)
    image = image_columns[0] if len(image_columns) == 1 else known[0]
    label = next((name_of[name] for name in _LABEL_COLUMNS if name in name_of), None)
    others = {name: columns[name] for name in columns if name not in (image, *image_columns)}
    return columns[image], columns[label] if label else _guess_labels(others, len(columns[image]))


def _guess_labels(columns: _Columns, count: int) -> _Cells:
    """Returns the only column that does not number the rows, or the labels of one-hot columns.

    Raises:
      LookupError: there are several such columns.
    """
    indices = [tuple(map(str, range(start, start + count))) for start in (0, 1)]
    columns = {name: cells for name, cells in columns.items() if name.lower() not in _INDEX_COLUMNS}
    rows = [
        [cell.removesuffix(".0") for cell in row] for row in zip(*columns.values(), strict=True)
    ]
    if len(columns) > 1 and all(set(row) == {"0", "1"} and row.count("1") == 1 for row in rows):
        _log.info("Assuming that the columns %s are one-hot labels.", ", ".join(columns))
        return [list(columns)[row.index("1")] for row in rows]
    names = [name for name in columns if columns[name] not in indices] or list(columns)
    if len(names) > 1:
        raise LookupError
    if not names:
        return [""] * count
    _log.info("Assuming that the column %s holds the labels.", names[0])
    return columns[names[0]]


def _missing_suffix(path: Path) -> str | None:
    """Returns the extension missing from a path, "" if it is complete; None if no file fits."""
    if os.path.isfile(path):
        return ""
    found = sorted(file.name for file in path.parent.glob(f"{glob.escape(path.name)}.*"))
    return next((name[len(path.name) :] for name in found if _is_image(name)), None)
