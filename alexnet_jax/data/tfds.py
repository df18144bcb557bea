"""Sets prepared by TensorFlow Datasets, ImageNet above all, read without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.core.utils.file_utils import list_data_dirs

from alexnet_jax.data.sources import Examples, RawExample, decode_files
from alexnet_jax.errors import InputError

_NEEDED = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}


@dataclass(frozen=True)
class TfdsSource:
    """One split of a prepared set, its pictures decoded when they are read.

    Attributes:
      records: what TFDS reads, each with the undecoded bytes of "image" and the int "label".
      name: set and split, for messages.
      class_names: the name of each class index.
      image_shape: (height, width, channels) of every picture handed out.
    """

    records: Sequence[dict[str, Any]]
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]

    @property
    def class_labels(self) -> tuple[str, ...]:
        """The names."""
        return self.class_names

    def __len__(self) -> int:
        return len(self.records)

    def load(self, indices: np.ndarray) -> list[RawExample]:
        """Reads the records at `indices`."""
        records = (self.records[index] for index in indices.tolist())
        return [RawExample(record["image"], int(record["label"])) for record in records]

    def decode(self, stored: Sequence[RawExample]) -> Examples:
        """Decodes pictures; a broken one gives readable False."""
        return decode_files(stored, self.image_shape)

    def read(self, indices: np.ndarray) -> Examples:
        """Reads and decodes the examples at `indices`."""
        return self.decode(self.load(indices))

    def describe(self, index: int) -> str:
        """Names one example."""
        return f"{self.name} example {index}"


def open_split(data: ConfigDict, split: str) -> TfdsSource:
    """Opens a split of a set that lies prepared on this machine; never downloads.

    Args:
      data: the `data` part of the config; reads name, root (None: TFDS's own folder), image_size
        and channels.
      split: any split that TFDS knows how to read, such as "train[:90%]".

    Returns:
      The source.

    Raises:
      InputError: if the set is not prepared here with random access, is no set of labeled
        pictures, or has no such split.
    """
    builder = _find_prepared(data.name, data.root)
    features = dict(builder.info.features.items())
    if not all(isinstance(features.get(key), kind) for key, kind in _NEEDED.items()):
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
    """Finds a set by its files, in a format with random access.

    `tfds.builder` would run the set's own code, which may import TensorFlow, and would ask a
    server for what is known of a set that is not here.
    """
    places = [str(place) for place in list_data_dirs(given_data_dir=root)]
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        missing = f"is not prepared in {' or '.join(places)}"
        raise InputError(_how_to_prepare(name, missing, places[0])) from None
    except ValueError as error:
        raise InputError(
            f"data.name={name!r} names no TFDS set: write NAME, NAME/CONFIG or NAME:1.2.3."
        ) from error
    formats = builder.info.available_file_formats()
    if not formats & tfds.core.FileFormat.with_random_access():
        found = ", ".join(sorted(file_format.value for file_format in formats))
        folder = f"{places[0]}_array_record"
        missing = (
            f"lies in {builder.data_dir} as {found}, which has no random access: prepare it again "
            f"elsewhere and set --config.data.root={folder}"
        )
        raise InputError(_how_to_prepare(name, missing, folder))
    return builder


def _open_records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict[str, Any]]:
    """Opens a split with its pictures left undecoded."""
    try:
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    except ValueError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"The TFDS set {builder.info.full_name} cannot open split {split!r} ({reason}): choose "
            f"from {', '.join(builder.info.splits)} and slices of these, as 'train[:90%]'."
        ) from error
    if records[0]["label"] < 0:
        raise InputError(
            f"Split {split!r} of the TFDS set {builder.info.full_name} has no labels: choose "
            f"another of {', '.join(builder.info.splits)}."
        )
    return records


def _how_to_prepare(name: str, missing: str, folder: str) -> str:
    """Says in three lines what is missing, what to get, and how."""
    what = (
        "Some sets need more to be prepared once: pip install 'alexnet_jax[prepare]' brings "
        "TensorFlow."
    )
    if name.startswith("imagenet2012"):
        what = (
            "Get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org "
            f"into {folder}/downloads/manual, and TensorFlow, needed to prepare but not to read, "
            "by pip install 'alexnet_jax[prepare]'."
        )
    return (
        f"The TFDS set {name} {missing}. (Any folder of pictures will do instead: "
        "--config.data.source=folder --config.data.root=DIR.)\n"
        f"{what}\n"
        'Then: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{folder}')"
        ".download_and_prepare(file_format='array_record')\""
    )
