"""Checkpoints of Flax before Orbax: a tree in one file, written by `flax.serialization`.

Layers have this package's names or Flax's own, `Conv_0` to `Dense_2`; see `own_names`.
"""

import re
from pathlib import Path

from flax import serialization

from alexnet_jax.errors import InputError
from alexnet_jax.weights import own_names
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_START = re.compile(rb"[\x81-\x8f][\xa1-\xbf][A-Za-z]")  # a small map whose first key is a name


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file begins like a tree in MessagePack."""
    return bool(_START.match(head))


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads the parameters of a tree.

    Raises:
      InputError: it is damaged, or does not fit a model.
    """
    data = path.read_bytes()
    try:
        arrays = own_names.arrays_in(serialization.msgpack_restore(data))
    except Exception as error:  # malformed trees raise many types
        raise InputError(f"is a damaged Flax checkpoint ({error!s:.100}).") from error
    return own_names.to_model(arrays, None, options)
