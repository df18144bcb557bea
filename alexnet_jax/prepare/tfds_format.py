"""The files that make array_record shards a TFDS dataset, written without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

DATASET = "images"
_SUFFIXES = {"jpeg": "array_record", "raw": "uint8"}


def shard_name(split: str, index: int, count: int, image_format: str) -> str:
    """Returns the name that TFDS gives the file of a shard, with its own suffix for raw images."""
    return f"{DATASET}-{split}.{_SUFFIXES[image_format]}-{index:05d}-of-{count:05d}"


def write(
    root: Path,
    shape: tuple[int | None, int | None, int],
    class_ids: Sequence[str],
    sizes: Mapping[str, np.ndarray],
) -> None:
    """Writes features.json, the label names and, last, dataset_info.json.

    Args:
      root: the folder of the shards.
      shape: (height, width, channels) of the images, None where they differ.
      class_ids: the unique names of the classes.
      sizes: int64[shards, 2 or more] of each split: the images of each shard and their bytes.
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
                shard_lengths=shards[:, 0].tolist(),
                num_bytes=int(shards[:, 1].sum()),
                filename_template=template.replace(
                    split=split, filetype_suffix=tfds.core.FileFormat.ARRAY_RECORD.file_suffix
                ),
            )
            for split, shards in sizes.items()
        ],
        filename_template=template,
        check_data=False,
        description="Images of one size, prepared by alexnet_jax.",
    )
