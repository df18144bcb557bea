"""Checkpoints of other Flax programs: folders that Orbax restores to a tree.

Layers have this package's names or Flax's own, `Conv_0` to `Dense_2`; see `own_names`.
"""

import math
import textwrap
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from flax import traverse_util

from alexnet_jax.errors import InputError
from alexnet_jax.weights import archive, own_names
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_MARK = "_METADATA"  # a file in every folder of arrays
_ITEMS = ("", "default", "state", "params", "model")  # subfolders of a checkpoint manager


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a path is a folder that Orbax wrote."""
    return _folder(path) is not None


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads the parameters in a folder.

    Raises:
      InputError: it is damaged, or does not fit a model.
    """
    folder = _folder(path)
    assert folder is not None  # of what matches
    try:
        arrays = own_names.arrays_in(_restore(folder))
    except InputError:
        raise
    except Exception as error:  # Orbax and tensorstore raise many types
        reason = textwrap.shorten(str(error), 100)
        raise InputError(f"is a folder that Orbax cannot restore ({reason}).") from error
    return own_names.to_model(arrays, None, options)


def _folder(path: Path) -> Path | None:
    """Returns the folder of arrays that a path is or holds."""
    folders = (path / item for item in _ITEMS)
    return next((folder for folder in folders if (folder / _MARK).is_file()), None)


def _check_size(metadata: Any, folder: Path) -> None:
    """Raises InputError if arrays, or their chunks, are far larger than the files they are in."""
    largest = 0
    for leaf in jax.tree.leaves(metadata):
        storage = getattr(leaf, "storage", None)
        chunk = getattr(storage, "chunk_shape", None) or ()
        length = max(math.prod(getattr(leaf, "shape", None) or ()), math.prod(chunk))
        largest += length * np.dtype(getattr(leaf, "dtype", None) or np.float64).itemsize
    stored = sum(path.stat().st_size for path in folder.rglob("*"))
    if largest > max(archive.MAX_BYTES, 4 * stored):
        raise InputError("is refused: it unpacks to more bytes than weights need.")


def _restore(folder: Path) -> dict[str, Any]:
    """Returns the arrays of a folder on the host, whatever devices wrote them.

    Each is restored by itself, after a look at the database of all: when one of several is damaged,
    Orbax leaves the others unfinished, which then print errors.
    """
    if (folder / "manifest.ocdbt").is_file():
        base = {"driver": "file", "path": f"{folder.absolute()}/"}
        tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result().list().result()
    arrays: dict[tuple[str, ...], np.ndarray] = {}
    checkpointer = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    try:
        item = checkpointer.metadata(folder.absolute()).item_metadata
        if item is None:
            raise ValueError("it has no metadata")
        _check_size(item.tree, folder)
        for keys, leaf in traverse_util.flatten_dict(item.tree).items():
            if getattr(leaf, "shape", None):  # lists, such as optimizers have, are no weights
                arrays[keys] = _restore_array(checkpointer, folder, keys, leaf)
    finally:
        checkpointer.close()
    tree: dict[str, Any] = traverse_util.unflatten_dict(arrays)
    return tree


def _restore_array(checkpointer: Any, folder: Path, keys: tuple[str, ...], leaf: Any) -> np.ndarray:
    on_host = ocp.RestoreArgs(restore_type=np.ndarray)
    item, restore_args = (traverse_util.unflatten_dict({keys: x}) for x in (leaf, on_host))
    options = ocp.args.PyTreeRestore(item=item, restore_args=restore_args, partial_restore=True)
    restored = checkpointer.restore(folder.absolute(), args=options)
    array: np.ndarray = traverse_util.flatten_dict(restored)[keys]
    return array
