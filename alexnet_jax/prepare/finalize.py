"""The end of a preparation: labels, statistics, report and manifest, from the ShardInfos."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.naming import ShardedFileTemplate

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED, labels_file, statistics_file
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Inputs, name_of
from alexnet_jax.prepare.shards import ShardInfo, ShardJob

DATASET = "images"  # the name that TFDS knows the dataset by
REPORT = "report.json"

_Infos = Mapping[str, ShardInfo]  # of each split


class Report(NamedTuple):
    """The outcome of a preparation.

    Attributes:
      counts: images prepared, by split.
      unreadable: [name, reason] of every image left out.
      warnings: what may be wrong with the dataset, one sentence each.
    """

    counts: dict[str, int]
    unreadable: list[list[str]]
    warnings: list[str]

    def save(self, path: Path) -> None:
        """Writes the report as JSON."""
        path.write_text(json.dumps(self._asdict(), indent=1) + "\n")


def finalize(
    inputs: Inputs,
    jobs: Mapping[str, Sequence[ShardJob]],
    settings: Mapping[str, Any],
    root: Path,
) -> None:
    """Writes everything that a dataset has besides its shards, the manifest last.

    Args:
      inputs: the images.
      jobs: all shards of each split, each of them complete.
      settings: to be kept in the manifest; the fields of ImageFormat are among them.
      root: the folder of the dataset.

    Raises:
      InputError: not one image of a split is readable.
      OSError: a file cannot be written.
    """
    table = next(iter(inputs.values())).classes
    infos = {split: ShardInfo.load(shards) for split, shards in jobs.items()}
    class_counts = {}
    for split, info in infos.items():
        labels = info.examples["label"]
        if not len(labels):
            raise InputError(f"Not one image of the split {split!r} can be read.")
        class_counts[split] = np.bincount(labels[labels >= 0], minlength=len(table.ids))
        sums = RunningStatistics(info.image, info.products, len(labels))
        np.save(labels_file(root, split), labels)
        sums.statistics(class_counts[split]).save(statistics_file(root, split))
    if settings["format"] == "jpeg":
        side = None if settings["resize"] == "short_side" else settings["size"]
        _write_tfds_files(root, (side, side, settings["channels"]), table.ids, infos)
    Report(
        {split: len(info.examples) for split, info in infos.items()},
        [problem for info in infos.values() for problem in info.unreadable.tolist()],
        [*_doubtful_classes(table.ids, class_counts), *_duplicates(inputs, infos)],
    ).save(root / REPORT)
    splits = {
        split: [
            {"name": job.data.name, "examples": count, "bytes": size}
            for job, (count, _, size) in zip(jobs[split], info.shards.tolist(), strict=True)
        ]
        for split, info in infos.items()
    }
    classes = {"class_ids": table.ids, "class_labels": table.labels}
    partial = root / UNFINISHED / MANIFEST  # removed with its folder if the program is killed
    partial.write_text(json.dumps({**settings, **classes, "splits": splits}, indent=1) + "\n")
    partial.replace(root / MANIFEST)


def _write_tfds_files(
    root: Path, shape: tuple[int | None, ...], class_ids: Sequence[str], infos: _Infos
) -> None:
    """Writes the files that make array_record shards a TFDS dataset, without TensorFlow.

    They are features.json, the label names and, last, dataset_info.json.
    """
    template = ShardedFileTemplate(data_dir=root, dataset_name=DATASET)
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
                shard_lengths=info.shards[:, 0].tolist(),
                num_bytes=int(info.shards[:, 1].sum()),
                filename_template=template.replace(
                    split=split, filetype_suffix=tfds.core.FileFormat.ARRAY_RECORD.file_suffix
                ),
            )
            for split, info in infos.items()
        ],
        filename_template=template,
        check_data=False,
        description="Images of one size, prepared by alexnet_jax.",
    )


def _doubtful_classes(ids: Sequence[str], counts: Mapping[str, np.ndarray]) -> Iterator[str]:
    if len(ids) == 1:
        yield f"The dataset has only one class, {ids[0]!r}: a classifier needs two or more."
    for split, images in counts.items():
        empty = np.flatnonzero(images == 0)
        if len(empty) == len(ids):
            yield f"The split {split!r} has no labels: no model can be trained or evaluated on it."
        elif len(empty):
            yield (
                f"The split {split!r} has no images of {len(empty)} of the {len(ids)} classes, "
                f"such as {ids[empty[0]]!r}."
            )


def _duplicates(inputs: Inputs, infos: _Infos) -> Iterator[str]:
    """Yields a sentence for each split with repeated images, and for each two that share some."""

    def name(split: str, examples: np.ndarray) -> str:
        return name_of(inputs[split], int(examples["index"][0]))

    for split, info in infos.items():
        examples = info.examples[np.argsort(info.examples["checksum"], kind="stable")]
        is_repeat = np.diff(examples["checksum"]) == 0
        originals, repeats = examples[:-1][is_repeat], examples[1:][is_repeat]
        if len(repeats):
            conflicts = np.count_nonzero(repeats["label"] != originals["label"])
            yield (
                f"The split {split!r} repeats {len(repeats)} images, {conflicts} of them with "
                f"another label, such as {name(split, repeats)}."
            )
    for first, second in itertools.combinations(infos, 2):
        examples = infos[second].examples
        shared = examples[np.isin(examples["checksum"], infos[first].examples["checksum"])]
        if len(shared):
            yield (
                f"The splits {first!r} and {second!r} share {len(shared)} of their images, such "
                f"as {name(second, shared)}."
            )
