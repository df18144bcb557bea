"""The files that make array_record shards a TFDS dataset, written without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

DATASET = "images"
_SUFFIXES = {"jpeg": "array_record", "raw": "uint8"}


class SplitSize(NamedTuple):
    """The size of a split.

    Attributes:
      shard_lengths: examples in each shard.
      image_bytes: of all images as stored.
    """

    shard_lengths: Sequence[int]
    image_bytes: int


def shard_name(split: str, index: int, count: int, image_format: str) -> str:
    """Returns the name that TFDS gives the file of a shard, with its own suffix for raw images."""
    return f"{DATASET}-{split}.{_SUFFIXES[image_format]}-{index:05d}-of-{count:05d}"


def write(
    root: Path,
    shape: tuple[int | None, int | None, int],
    class_ids: Sequence[str],
    splits: Mapping[str, SplitSize],
) -> None:
    """Writes features.json, the label names and, last, dataset_info.json.

    Args:
      root: the folder of the shards.
      shape: (height, width, channels) of the images, None where they differ.
      class_ids: the unique names of the classes.
      splits: the size of each split.
    """
    template = naming.ShardedFileTemplate(
        data_dir=root, template=naming.DEFAULT_FILENAME_TEMPLATE, dataset_name=DATASET
    )
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features=tfds.features.FeaturesDict(
            {
                "file_name": tfds.features.Text(),
                "image": tfds.features.Image(shape=shape, encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(names=class_ids),
            }
        ),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=list(size.shard_lengths),
                num_bytes=size.image_bytes,
                filename_template=template.replace(
                    split=split, filetype_suffix=tfds.core.FileFormat.ARRAY_RECORD.file_suffix
                ),
            )
            for split, size in splits.items()
        ],
        filename_template=template,
        check_data=False,
        description="Images of one size, prepared by alexnet_jax.",
    )
