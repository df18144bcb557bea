"""Where examples come from: the interface of a source, the in-memory one, and the table of all."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.errors import InputError


class Examples(NamedTuple):
    """Some examples of a source, in the order asked for.

    Attributes:
      images: uint8[n, height, width, channels]; zeros where unreadable.
      labels: int32[n], class indices from 0.
      readable: bool[n], False where the picture could not be decoded.
    """

    images: np.ndarray
    labels: np.ndarray
    readable: np.ndarray


class Source(Protocol):
    """A finite set of labelled pictures with random access."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class index."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture handed out."""
        ...

    def __len__(self) -> int: ...

    def read(self, indices: np.ndarray) -> Examples:
        """Reads the examples at int[n] `indices`; safe to call from several threads."""
        ...

    def describe(self, index: int) -> str:
        """Names one example in a message: its path, or its place in its set."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Examples that lie in memory, gathered a batch at a time.

    Attributes:
      images: uint8[n, height, width, channels].
      labels: int32[n].
      class_names: the name of each class index.
      name: what to call the set in messages.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads the examples at `indices`."""
        return Examples(self.images[indices], self.labels[indices], np.ones(len(indices), bool))

    def describe(self, index: int) -> str:
        """Names one example."""
        return f"{self.name} example {index}"


# Imported only when asked for: TFDS alone takes longer to import than all the others.
_MODULES = {
    "digits": "alexnet_jax.data.digits",
    "folder": "alexnet_jax.data.folder",
    "tfds": "alexnet_jax.data.tfds",
}


def open_source(data: ConfigDict, split: str) -> Source:
    """Opens one split of the set that the config names.

    Args:
      data: the `data` part of the config; reads source, root, name, train_split, image_size and
        channels.
      split: the split wanted, usually data.train_split or data.eval_split.

    Returns:
      The source. Its class indices are those of the training split.

    Raises:
      InputError: if the kind of source is unknown, or the set is missing or malformed.
    """
    if data.source not in _MODULES:
        raise InputError(
            f"data.source={data.source!r} is unknown: choose one of {', '.join(sorted(_MODULES))}."
        )
    opener: Callable[[ConfigDict, str], Source] = import_module(_MODULES[data.source]).open_split
    return opener(data, split)
