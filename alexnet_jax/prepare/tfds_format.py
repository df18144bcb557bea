"""The files that make a folder of array_record shards a TFDS set, written without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import naming

DATASET = "pictures"


def shard_name(split: str, index: int, count: int) -> str:
    """Returns the name that TFDS gives a shard's file."""
    return f"{DATASET}-{split}.array_record-{index:05d}-of-{count:05d}"


def write(
    root: Path,
    *,
    shape: tuple[int | None, int | None, int],
    class_ids: Sequence[str],
    shard_lengths: Mapping[str, Sequence[int]],
    picture_bytes: Mapping[str, int],
) -> None:
    """Writes features.json, the label names and, last, dataset_info.json.

    Args:
      root: the folder that the shards lie in.
      shape: (height, width, channels) of the pictures, None where they differ.
      class_ids: the unique names of the classes.
      shard_lengths: examples in each shard, by split.
      picture_bytes: bytes of the pictures, by split.
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
                shard_lengths=list(lengths),
                num_bytes=picture_bytes[split],
                filename_template=template.replace(
                    split=split, filetype_suffix=tfds.core.FileFormat.ARRAY_RECORD.file_suffix
                ),
            )
            for split, lengths in shard_lengths.items()
        ],
        filename_template=template,
        check_data=False,
        description="Pictures of one size, prepared by alexnet_jax.",
    )
