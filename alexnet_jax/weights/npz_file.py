"""NumPy's .npz with this package's own names, which holds any model; see `own_names`."""

import io
import math
import warnings
from pathlib import Path

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.weights import archive, own_names
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_METADATA = "metadata"
_SUFFIX = ".npy"
_MAX_TEXT = 10_000  # characters of a member's header


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file is a zip archive of .npy members."""
    names = archive.member_names(head, path)
    return bool(names) and all(name.endswith(_SUFFIX) for name in names)


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads arrays by this package's names, with its metadata or without.

    Raises:
      InputError: it is damaged or does not fit a model.
    """
    members = archive.read_members(path)
    arrays = {name.removesuffix(_SUFFIX): read_npy(data) for name, data in members.items()}
    metadata = arrays.pop(_METADATA, None)
    if metadata is not None and (metadata.dtype.kind != "U" or metadata.ndim):
        raise InputError("has damaged metadata: it is not text.")
    return own_names.to_model(arrays, None if metadata is None else str(metadata), options)


def write_file(path: Path, model_file: ModelFile) -> None:
    """Writes a model of any kind with its preprocessing, classes and mean image."""
    arrays = own_names.arrays_of(model_file)
    arrays[_METADATA] = np.array(own_names.metadata_of(model_file))
    with path.open("wb") as file:  # np.savez appends .npz to a name
        np.savez(file, allow_pickle=False, **arrays)


def read_npy(data: bytes) -> np.ndarray:
    """Returns the array of a .npy file, a view of its bytes.

    Raises:
      InputError: it is damaged, or holds Python objects.
    """
    file = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran_order, dtype = read(file, max_header_size=_MAX_TEXT)
        start = file.tell()
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) - start:
            raise ValueError("it holds objects, or fewer or more numbers than it says")
        array = np.frombuffer(data, dtype, offset=start)
        return array.reshape(shape, order="F" if fortran_order else "C")
    except Exception as error:  # of many types, by malformed headers
        raise InputError(f"is damaged: a member is not an array ({error!s:.100}).") from error
