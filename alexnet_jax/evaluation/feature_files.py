"""Files of features, written batch by batch: memory does not grow with the number of images.

Every format holds the same: `names` of the images, `labels` where they are known, and an array
float32[images, ...] for each layer, whose rows are in the order of the names.
"""

import itertools
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_ROWS = 4096  # names converted at a time


class FeatureWriter(Protocol):
    """Writes files of one format into a folder, which its constructor takes."""

    def append(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        """Writes the next rows, the first time perhaps none: of every array, and their names."""

    def close(self) -> None:
        """Completes the files."""


class NpyFiles:
    """FOLDER/LAYER.npy for each layer, FOLDER/labels.npy and FOLDER/names.txt, a name per line."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._names = (folder / "names.txt").open("w", encoding="utf-8")
        self._arrays: dict[str, _NpyFile] = {}

    def append(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:  # noqa: D102
        for name, rows in arrays.items():
            if name not in self._arrays:
                self._arrays[name] = _NpyFile(self._folder / f"{name}.npy", rows)
            self._arrays[name].append(rows)
        self._names.writelines(f"{name}\n" for name in names)

    def close(self) -> None:  # noqa: D102
        for array in self._arrays.values():
            array.close()
        self._names.close()


class _NpyFile:
    """One array in numpy's format, whose number of rows is known at the end."""

    def __init__(self, path: Path, like: np.ndarray):
        self._file, self._count = path.open("wb"), 0
        self._header = {"descr": like.dtype.str, "fortran_order": False}
        self._row_shape = like.shape[1:]
        self._write_header()

    def _write_header(self) -> None:
        # numpy reserves space for a first axis of any length.
        shape = (self._count, *self._row_shape)
        np.lib.format.write_array_header_1_0(self._file, {**self._header, "shape": shape})

    def append(self, rows: np.ndarray) -> None:
        self._count += len(rows)
        self._file.write(np.ascontiguousarray(rows).data)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


class NpzFile(NpyFiles):
    """FOLDER/features.npz with the same arrays as members, and `names` as one of strings."""

    _longest = 1  # characters of a name

    def append(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:  # noqa: D102
        super().append(names, arrays)
        self._longest = max(self._longest, *map(len, names), 1)

    def close(self) -> None:  # noqa: D102
        super().close()
        text = self._folder / "names.txt"
        names = _NpyFile(self._folder / "names.npy", np.empty(0, f"<U{self._longest}"))
        with text.open(encoding="utf-8") as lines:
            while rows := [line.rstrip("\n") for line in itertools.islice(lines, _ROWS)]:
                names.append(np.array(rows, f"<U{self._longest}"))
        names.close()
        text.unlink()
        with zipfile.ZipFile(self._folder / "features.npz", "w") as archive:
            for path in sorted(self._folder.glob("*.npy")):
                archive.write(path, path.name)
                path.unlink()


class ParquetFile:
    """FOLDER/features.parquet: a column for each array, each row flattened to a list.

    The field metadata of a column holds the shape of a row: {"shape": "6,6,256"}.
    """

    def __init__(self, folder: Path):
        self._path = folder / "features.parquet"
        self._writer: Any = None

    def append(self, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:  # noqa: D102
        import pyarrow as pa  # slow to import
        from pyarrow import parquet

        columns = {"names": pa.array(names, pa.string())}
        fields = [pa.field("names", pa.string())]
        for name, rows in arrays.items():
            column = pa.array(rows.reshape(-1))
            if rows.ndim > 1:
                size = int(np.prod(rows.shape[1:]))
                column = pa.FixedSizeListArray.from_arrays(column, size)
            shape = ",".join(map(str, rows.shape[1:]))
            fields.append(pa.field(name, column.type, metadata={"shape": shape}))
            columns[name] = column
        if self._writer is None:
            self._writer = parquet.ParquetWriter(
                self._path, pa.schema(fields), use_dictionary=["names"], compression="none"
            )
        self._writer.write_table(pa.table(list(columns.values()), schema=self._writer.schema))

    def close(self) -> None:  # noqa: D102
        if self._writer is not None:
            self._writer.close()


FEATURE_FORMATS: Mapping[str, Callable[[Path], FeatureWriter]] = {
    "npy": NpyFiles,
    "npz": NpzFile,
    "parquet": ParquetFile,
}


def replace_files(partial: Path, folder: Path, layers: Iterable[str]) -> list[str]:
    """Moves complete files into a folder, in the place of all earlier ones of any format.

    So arrays and names always match. Other files of the folder are left alone.

    Args:
      partial: the folder of the complete files.
      folder: where they go.
      layers: names of all layers that an earlier call may have written.

    Returns:
      The names of the files moved.
    """
    for path in _earlier_files(folder, layers):
        path.unlink()
    names = sorted(path.name for path in partial.iterdir())
    for name in names:
        (partial / name).replace(folder / name)
    return names


def _earlier_files(folder: Path, layers: Iterable[str]) -> list[Path]:
    """Returns the files of earlier calls; names.txt and labels.npy only with arrays of layers."""
    files = [folder / "features.npz", folder / "features.parquet"]
    arrays = [path for name in layers if (path := folder / f"{name}.npy").is_file()]
    if arrays and (folder / "names.txt").is_file():  # which is deleted last
        files += [*arrays, folder / "labels.npy", folder / "names.txt"]
    return [path for path in files if path.is_file()]
