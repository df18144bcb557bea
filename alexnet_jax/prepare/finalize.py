"""The end of a preparation: labels, statistics, report and manifest, from the ShardInfos."""

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED, labels_file, statistics_file
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import tfds_format
from alexnet_jax.prepare.inputs import Inputs
from alexnet_jax.prepare.shards import ImageFormat, ShardInfo, ShardJob
from alexnet_jax.prepare.tfds_format import SplitSize

REPORT = "report.json"


class Report(NamedTuple):
    """The outcome of a preparation.

    Attributes:
      counts: images prepared, by split.
      unreadable: (name, reason) of every image left out.
      warnings: what may be wrong with the dataset, one sentence each.
    """

    counts: dict[str, int]
    unreadable: list[tuple[str, str]]
    warnings: list[str]

    def save(self, path: Path) -> None:
        """Writes the report as JSON."""
        _write_json(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what `save` wrote."""
        return cls(**json.loads(path.read_text()))


class _Split(NamedTuple):
    """The ShardInfos of a split taken together.

    Attributes:
      files: the manifest's description of each shard.
      image_bytes: of all images as stored.
      indices: int64[n], the index in the input of each image, in the order of the shards.
      labels: int32[n].
      checksums: uint64[n].
      unreadable: (name, reason) of each image left out.
    """

    files: list[dict[str, Any]]
    image_bytes: int
    indices: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    unreadable: list[tuple[str, str]]


def finalize(
    inputs: Inputs,
    image_format: ImageFormat,
    root: Path,
    jobs: Mapping[str, Sequence[ShardJob]],
    settings: Mapping[str, Any],
) -> None:
    """Writes everything that a dataset has besides its shards, the manifest last.

    Args:
      inputs: the images.
      image_format: how they are stored.
      root: folder of the dataset.
      jobs: the shards of each split, all of them complete.
      settings: to be kept in the manifest.

    Raises:
      InputError: not one image of a split is readable.
      OSError: a file cannot be written.
    """
    table = inputs.classes
    splits = {
        name: _collect(root, RunningStatistics.zero(image_format.shape), shards, len(table.ids))
        for name, shards in jobs.items()
    }
    if image_format.format == "jpeg":
        side = None if image_format.resize == "short_side" else image_format.size
        sizes = {
            name: SplitSize([file["examples"] for file in split.files], split.image_bytes)
            for name, split in splits.items()
        }
        tfds_format.write(root, (side, side, image_format.channels), table.ids, sizes)
    Report(
        {name: len(split.labels) for name, split in splits.items()},
        [problem for split in splits.values() for problem in split.unreadable],
        [*_doubtful_classes(table.ids, splits), *_duplicates(inputs, splits)],
    ).save(root / REPORT)
    manifest = {
        **settings,
        "class_ids": table.ids,
        "class_labels": table.labels,
        "splits": {name: split.files for name, split in splits.items()},
    }
    _write_json(root / UNFINISHED / MANIFEST, manifest)
    os.replace(root / UNFINISHED / MANIFEST, root / MANIFEST)


def _collect(
    root: Path, statistics: RunningStatistics, jobs: Sequence[ShardJob], num_classes: int
) -> _Split:
    """Joins the ShardInfos of a split, one at a time, and writes its labels and statistics."""
    files, image_bytes, unreadable = [], 0, []
    arrays: dict[str, list[np.ndarray]] = {"indices": [], "labels": [], "checksums": []}
    for job in jobs:
        info = ShardInfo.load(job.info)
        statistics.merge(info.statistics)
        for name, parts in arrays.items():
            parts.append(getattr(info, name))
        unreadable += info.unreadable
        size, file_size = info.num_bytes.tolist()
        image_bytes += size
        files.append({"name": job.data.name, "examples": len(info.labels), "bytes": file_size})
    split = jobs[0].split
    if not statistics.count:
        raise InputError(f"Not one image of the split {split!r} can be read.")
    joined = {name: np.concatenate(parts) for name, parts in arrays.items()}
    np.save(labels_file(root, split), joined["labels"])
    counts = _class_counts(joined["labels"], num_classes)
    statistics.statistics(counts).save(statistics_file(root, split))
    return _Split(files, image_bytes, unreadable=unreadable, **joined)


def _class_counts(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(labels[labels >= 0], minlength=num_classes)


def _doubtful_classes(ids: Sequence[str], splits: Mapping[str, _Split]) -> Iterator[str]:
    if len(ids) == 1:
        yield f"The dataset has only one class, {ids[0]!r}: a classifier needs two or more."
    for name, split in splits.items():
        empty = np.flatnonzero(_class_counts(split.labels, len(ids)) == 0)
        if split.labels.max() < 0:
            yield f"The split {name!r} has no labels: no model can be trained or evaluated on it."
        elif len(empty):
            yield (
                f"The split {name!r} has no images of {len(empty)} of the {len(ids)} classes, "
                f"such as {ids[empty[0]]!r}."
            )


def _duplicates(inputs: Inputs, splits: Mapping[str, _Split]) -> Iterator[str]:
    """Yields a sentence for each split with repeated images, and for each two that share some."""
    for name, split in splits.items():
        order = np.argsort(split.checksums, kind="stable")
        repeats = order[1:][np.diff(split.checksums[order]) == 0]
        originals = order[:-1][np.diff(split.checksums[order]) == 0]
        if len(repeats):
            conflicts = np.count_nonzero(split.labels[repeats] != split.labels[originals])
            yield (
                f"The split {name!r} repeats {len(repeats)} images, {conflicts} of them with "
                f"another label, such as {inputs.name_of(name, split.indices[repeats[0]])}."
            )
    for (first, one), (second, other) in itertools.combinations(splits.items(), 2):
        shared = np.flatnonzero(np.isin(other.checksums, one.checksums))
        if len(shared):
            yield (
                f"The splits {first!r} and {second!r} share {len(shared)} of their images, such "
                f"as {inputs.name_of(second, other.indices[shared[0]])}."
            )


def _write_json(path: Path, tree: Any) -> None:
    path.write_text(json.dumps(tree, indent=1) + "\n")
