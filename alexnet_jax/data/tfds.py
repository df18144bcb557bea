"""Datasets prepared by TensorFlow Datasets, such as ImageNet, read without TensorFlow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.data import classes
from alexnet_jax.data.source import DataOptions, RawExample, Source
from alexnet_jax.errors import InputError

_NEEDED = {"image": tfds.features.Image, "label": tfds.features.ClassLabel}


@dataclass(eq=False)
class TfdsSource(Source):
    """One split of a dataset that TFDS prepared.

    Attributes:
      records: what TFDS reads, each with the undecoded bytes of "image" and the int "label".
    """

    records: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.records)

    def read(self, indices: np.ndarray) -> list[RawExample]:
        return [_read(self.records, index) for index in indices.tolist()]


def _read(records: Sequence[dict[str, Any]], index: int) -> RawExample:
    try:
        record = records[index]
    except RuntimeError:  # array_record's, of a checksum that does not match
        return RawExample(b"", 0)
    return RawExample(record["image"], int(record["label"]))


def open_split(options: DataOptions, split: str) -> TfdsSource:
    """Opens a split of a dataset that is prepared on this machine; never downloads.

    Args:
      options: the dataset; without a root it is in TFDS's own folder.
      split: any split that TFDS can read, such as "train[:90%]".

    Raises:
      InputError: the dataset is not prepared here with random access, does not consist of labeled
        images, or has no such split.
    """
    builder = _find_prepared(options.name, options.root)
    features = dict(builder.info.features.items())
    if not all(isinstance(features.get(key), kind) for key, kind in _NEEDED.items()):
        raise InputError(
            f"The TFDS dataset {options.name} has the features {', '.join(features)}, but an image "
            "'image' and a class 'label' are needed: choose another with --config.data.name."
        )
    table, records = classes.from_ids(features["label"].names), _open_records(builder, split)
    return TfdsSource(options.name, split, table, options.image_shape, None, records)


def _find_prepared(name: str, root: str | None) -> tfds.core.DatasetBuilder:
    """Finds a dataset by its files, in a format with random access.

    `tfds.builder` would run the dataset's own code, which may import TensorFlow, and would ask a
    server about datasets that are not here.
    """
    folders = list(map(str, tfds.core.utils.file_utils.list_data_dirs(root)))
    try:
        builder = tfds.core.read_only_builder.builder_from_files(name, data_dir=root)
    except tfds.core.DatasetNotFoundError:
        missing = f"is not prepared in {' or '.join(folders)}"
        raise InputError(_how_to_prepare(name, missing, folders[0])) from None
    except ValueError as error:
        raise InputError(
            f"data.name={name!r} is not a TFDS dataset: write NAME, NAME/CONFIG or NAME:1.2.3."
        ) from error
    formats = builder.info.available_file_formats()
    if formats & tfds.core.FileFormat.with_random_access():
        return builder
    found = ", ".join(sorted(file_format.value for file_format in formats))
    folder = f"{folders[0]}_array_record"
    problem = f"is in {builder.data_dir} as {found}, which has no random access"
    fix = f"prepare it again elsewhere and set --config.data.root={folder}"
    raise InputError(_how_to_prepare(name, f"{problem}: {fix}", folder))


def _open_records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict[str, Any]]:
    """Opens a split with its images left undecoded."""
    try:
        records = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        problem = "is empty" if not len(records) else "has no labels"
        if len(records) and _read(records, 0).label >= 0:
            return records
    except ValueError as error:
        problem = f"cannot be opened ({str(error).splitlines()[0].rstrip('.')})"
    raise InputError(
        f"The split {split!r} of the TFDS dataset {builder.info.full_name} {problem}: choose from "
        f"{', '.join(builder.info.splits)} and parts of these, such as 'train[:90%]'."
    )


def _how_to_prepare(name: str, missing: str, folder: str) -> str:
    """Returns three lines: what is missing, what to get, and how."""
    needed = "Some datasets need TensorFlow to be prepared"
    if name.startswith("imagenet2012"):
        needed = (
            "Get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org "
            f"into {folder}/downloads/manual. Preparing, but not reading, needs TensorFlow"
        )
    return (
        f"The TFDS dataset {name} {missing}. (Any folder of images works instead: "
        "--config.data.source=folder --config.data.root=DIR.)\n"
        f"{needed}: pip install 'alexnet_jax[prepare]'.\n"
        'Then: python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder('{name}', data_dir='{folder}')"
        ".download_and_prepare(file_format='array_record')\""
    )
