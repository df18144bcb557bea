"""Sets prepared by TensorFlow Datasets, ImageNet above all, read without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils.file_utils import list_data_dirs

from alexnet_jax.data.images import UnreadableImage, decode, resize_and_crop
from alexnet_jax.data.sources import Examples
from alexnet_jax.errors import InputError


@dataclass(frozen=True)
class TfdsSource:
    """One split of a prepared set, its pictures decoded when they are read.

    Attributes:
      records: the data source of TFDS; each record has the undecoded bytes of "image".
      name: set and split, for messages.
      class_names: the name of each class index.
      image_shape: (height, width, channels) of every picture handed out.
    """

    records: Sequence[dict[str, Any]]
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the examples at `indices`; a broken picture gives readable False."""
        images = np.zeros((len(indices), *self.image_shape), np.uint8)
        labels = np.zeros(len(indices), np.int32)
        readable = np.zeros(len(indices), bool)
        size, _, channels = self.image_shape
        for row, index in enumerate(indices):
            record = self.records[int(index)]
            labels[row] = record["label"]
            try:
                images[row] = resize_and_crop(decode(record["image"], channels), size)
            except UnreadableImage:
                continue
            readable[row] = True
        return Examples(images, labels, readable)

    def describe(self, index: int) -> str:
        """Names one example."""
        return f"{self.name} example {index}"


def open_split(data: ConfigDict, split: str) -> TfdsSource:
    """Opens a split of a set that lies prepared on this machine; never downloads.

    The set is found and read by its files alone, so that neither its code nor TensorFlow nor the
    network is touched.

    Args:
      data: the `data` part of the config; reads name, root (None: TFDS's own folder), image_size
        and channels.
      split: any split that TFDS knows how to read, such as "train[:90%]".

    Returns:
      The source.

    Raises:
      InputError: if the set is not prepared here with random access, is no set of labelled
        pictures, or has no such split.
    """
    builder = _find_prepared(data.name, data.root)
    features = builder.info.features
    if not (
        isinstance(features.get("image"), tfds.features.Image)
        and isinstance(features.get("label"), tfds.features.ClassLabel)
    ):
        raise InputError(
            f"The TFDS set {data.name} has the features {', '.join(features)}, but a picture "
            "'image' and a class 'label' are needed: choose another with --config.data.name."
        )
    return TfdsSource(
        records=_open_records(builder, split),
        name=f"{data.name} {split}",
        class_names=tuple(features["label"].names),
        image_shape=(data.image_size, data.image_size, data.channels),
    )


def _find_prepared(name: str, root: str | None) -> tfds.core.DatasetBuilder:
    """Finds a set on disk by its files, in a format with random access."""
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        raise InputError(_how_to_prepare(name, root, "is not prepared")) from None
    formats = builder.info.available_file_formats()
    if not formats & tfds.core.FileFormat.with_random_access():
        found = ", ".join(sorted(file_format.value for file_format in formats))
        raise InputError(_how_to_prepare(name, root, f"is prepared only as {found}"))
    return builder


def _open_records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict[str, Any]]:
    """Opens a split with its pictures left undecoded."""
    try:
        return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except (ValueError, KeyError) as error:
        raise InputError(
            f"The TFDS set {builder.info.full_name} has no split {split!r}; it has "
            f"{', '.join(builder.info.splits)}, and slices of these such as 'train[:90%]'."
        ) from error


def _how_to_prepare(name: str, root: str | None, state: str) -> str:
    """Says in three lines what is missing, what to get, and how."""
    folders = ", ".join(str(folder) for folder in list_data_dirs(given_data_dir=root))
    return f"The TFDS set {name} {state} in {folders}."
