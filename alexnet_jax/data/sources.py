"""Where examples come from: the interface of a source, the in-memory one, and the table of all."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.data import splits
from alexnet_jax.data.images import UnreadableImage, decode, resize_and_crop
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


class RawExample(NamedTuple):
    """One example as it is stored.

    Attributes:
      data: a picture file's bytes, empty where they cannot be read, or uint8[height, width,
        channels] of a set that needs no decoding.
      label: class index from 0.
    """

    data: Any
    label: int


class Source(Protocol):
    """A finite set of labeled pictures with random access."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The unique name of each class index."""
        ...

    @property
    def class_labels(self) -> tuple[str, ...]:
        """What to show people for each class index; may repeat."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every picture handed out."""
        ...

    def __len__(self) -> int: ...

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Reads the examples at int[n] `indices`, undecoded; safe to call from several threads."""
        ...

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Decodes what `load` gave; safe to call from several threads."""
        ...

    def read(self, indices: np.ndarray) -> Examples:
        """Loads and decodes the examples at int[n] `indices`."""
        ...

    def describe(self, index: int) -> str:
        """Names one example in a message: its path, or its place in its set."""
        ...


class LabeledSource(Source, Protocol):
    """A source whose labels are known without reading."""

    @property
    def labels(self) -> np.ndarray:
        """int32[n], class indices from 0."""
        ...


@dataclass(frozen=True)
class ArraySource:
    """Examples that lie in memory, gathered a batch at a time.

    Attributes:
      images: uint8[n, height, width, channels].
      labels: int32[n].
      class_names: the name of each class index.
      name: what to call the set in messages.
      image_size: pixels; pictures of another size are resized as they are read.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    name: str
    image_size: int

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The names."""
        return self.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) as handed out."""
        return self.image_size, self.image_size, self.images.shape[-1]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Returns the examples at `indices`."""
        return [RawExample(self.images[index], int(self.labels[index])) for index in indices]

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Resizes examples."""
        images = np.stack([example.data for example in stored])
        labels = np.array([example.label for example in stored], np.int32)
        return self._resized(images, labels)

    def read(self, indices: np.ndarray) -> Examples:
        """Gathers the examples at `indices` all at once."""
        return self._resized(self.images[indices], self.labels[indices])

    def _resized(self, images: np.ndarray, labels: np.ndarray) -> Examples:
        if images.shape[1:] != self.image_shape:
            images = np.stack([resize_and_crop(image, self.image_size) for image in images])
        return Examples(images, labels, np.ones(len(labels), bool))

    def describe(self, index: int) -> str:
        """Names one example."""
        return f"{self.name} example {index}"


@dataclass(frozen=True)
class Subset:
    """Some examples of another source.

    Attributes:
      source: the other source.
      indices: int[n], which of its examples, in order.
    """

    source: Source
    indices: np.ndarray

    @property
    def class_names(self) -> tuple[str, ...]:
        """The other source's."""
        return self.source.class_names

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The other source's."""
        return self.source.class_labels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The other source's."""
        return self.source.image_shape

    @property
    def labels(self) -> np.ndarray:
        """int32[n], where the other source knows its own without reading."""
        labels: np.ndarray = cast(LabeledSource, self.source).labels[self.indices]
        return labels

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Loads the examples at `indices`."""
        return self.source.load(self.indices[indices])

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Decodes as the other source does."""
        return self.source.decode(stored)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads the examples at `indices`."""
        return self.source.read(self.indices[indices])

    def describe(self, index: int) -> str:
        """Names one example as the other source does."""
        return self.source.describe(int(self.indices[index]))


def decode_files(stored: Sequence[RawExample], image_shape: tuple[int, int, int]) -> Examples:
    """Decodes picture files of any format and size; a broken one gives readable False."""
    images = np.zeros((len(stored), *image_shape), np.uint8)
    readable = np.zeros(len(stored), bool)
    size, _, channels = image_shape
    for row, example in enumerate(stored):
        with contextlib.suppress(UnreadableImage):
            images[row] = resize_and_crop(decode(example.data, channels), size)
            readable[row] = True
    return Examples(images, np.array([example.label for example in stored], np.int32), readable)


# Imported only when asked for: TFDS alone takes longer to import than all the others.
_MODULES = {
    "digits": "alexnet_jax.data.digits",
    "folder": "alexnet_jax.data.folder",
    "prepared": "alexnet_jax.data.prepared",
    "tfds": "alexnet_jax.data.tfds",
}


def open_source(data: ConfigDict, split: str) -> Source:
    """Opens one split of the set that the config names.

    Args:
      data: the `data` part of the config; reads source, root, name, train_split, image_size and
        channels.
      split: the split wanted, usually data.train_split or data.eval_split, or a part of it in
        TFDS's notation: 'train[:90%]'.

    Returns:
      The source. Its class indices are those of the training split.

    Raises:
      InputError: if the kind of source is unknown, or the set is missing or malformed.
    """
    if data.source not in _MODULES:
        raise InputError(
            f"data.source={data.source!r} is unknown: choose one of {', '.join(sorted(_MODULES))}."
        )
    opener = import_module(_MODULES[data.source]).open_split
    if data.source == "tfds":  # TFDS cuts its splits itself, and knows 'train+validation' too
        return opener(data, split)
    name, *_ = splits.parse(split)
    return part_of(opener(data, name), split)


def part_of(whole: LabeledSource, split: str) -> LabeledSource:
    """Returns the part of a whole split that TFDS's notation names; every part mixes the classes.

    Raises:
      InputError: the part is empty.
    """
    if splits.is_whole(split):
        return whole
    return Subset(whole, mixed_order(whole.labels)[splits.indices(split, len(whole))])


def own_name(source: Source, split: str) -> str:
    """Returns a split under its own name: 'val[:9]' for 'validation[:9]' of a folder with val/.

    Args:
      source: what `open_source` returned.
      split: what it was asked for.
    """
    whole = source.source if isinstance(source, Subset) else source
    own: str | None = getattr(whole, "split", None)
    return split if own is None else own + split[len(splits.parse(split)[0]) :]


def mixed_order(labels: np.ndarray) -> np.ndarray:
    """Orders examples so that every stretch holds the classes in their shares.

    Files and arrays lie class by class: nine tenths of those would lack whole classes.

    Args:
      labels: int[n], class indices in any order.

    Returns:
      int[n], a permutation; examples of one class keep their order.
    """
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return np.argsort((rank + 0.5) / counts[labels], kind="stable")
