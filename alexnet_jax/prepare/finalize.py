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
from alexnet_jax.prepare.inputs import Inputs, name_of
from alexnet_jax.prepare.shards import ImageFormat, ShardInfo, ShardJob

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
        path.write_text(json.dumps(self._asdict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what `save` wrote."""
        return cls(**json.loads(path.read_text()))


def finalize(
    inputs: Inputs,
    image_format: ImageFormat,
    jobs: Sequence[ShardJob],
    settings: Mapping[str, Any],
) -> None:
    """Writes everything that a dataset has besides its shards, the manifest last.

    Args:
      inputs: the images.
      image_format: how they are stored.
      jobs: all shards, each of them complete.
      settings: to be kept in the manifest.

    Raises:
      InputError: not one image of a split is readable.
      OSError: a file cannot be written.
    """
    table = next(iter(inputs.values())).classes
    root = jobs[0].data.parent
    infos = {split: ShardInfo.load(job for job in jobs if job.split == split) for split in inputs}
    counts = {}
    for split, info in infos.items():
        if not len(info.labels):
            raise InputError(f"Not one image of the split {split!r} can be read.")
        counts[split] = np.bincount(info.labels[info.labels >= 0], minlength=len(table.ids))
        sums = RunningStatistics(info.image, info.products, len(info.labels))
        np.save(labels_file(root, split), info.labels)
        sums.statistics(counts[split]).save(statistics_file(root, split))
    if image_format.format == "jpeg":
        side = None if image_format.resize == "short_side" else image_format.size
        shape = (side, side, image_format.channels)
        tfds_format.write(root, shape, table.ids, {s: info.sizes for s, info in infos.items()})
    Report(
        {split: len(info.labels) for split, info in infos.items()},
        [problem for info in infos.values() for problem in info.unreadable.tolist()],
        [*_doubtful_classes(table.ids, counts), *_duplicates(inputs, infos)],
    ).save(root / REPORT)
    sizes = np.concatenate([info.sizes for info in infos.values()]).tolist()
    files: dict[str, list[dict[str, Any]]] = {split: [] for split in inputs}
    for job, (count, _, size) in zip(jobs, sizes, strict=True):
        files[job.split].append({"name": job.data.name, "examples": count, "bytes": size})
    manifest = {
        **settings,
        "class_ids": table.ids,
        "class_labels": table.labels,
        "splits": files,
    }
    partial = root / UNFINISHED / MANIFEST  # removed with its folder if the program is killed
    partial.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(partial, root / MANIFEST)


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


def _duplicates(inputs: Inputs, infos: Mapping[str, ShardInfo]) -> Iterator[str]:
    """Yields a sentence for each split with repeated images, and for each two that share some."""

    def name(split: str, rows: np.ndarray) -> str:
        return name_of(inputs[split], int(infos[split].indices[rows[0]]))

    for split, info in infos.items():
        order = np.argsort(info.checksums, kind="stable")
        same = np.flatnonzero(np.diff(info.checksums[order]) == 0)
        originals, repeats = order[same], order[same + 1]
        if len(repeats):
            conflicts = np.count_nonzero(info.labels[repeats] != info.labels[originals])
            yield (
                f"The split {split!r} repeats {len(repeats)} images, {conflicts} of them with "
                f"another label, such as {name(split, repeats)}."
            )
    for first, second in itertools.combinations(infos, 2):
        shared = np.flatnonzero(np.isin(infos[second].checksums, infos[first].checksums))
        if len(shared):
            yield (
                f"The splits {first!r} and {second!r} share {len(shared)} of their images, such "
                f"as {name(second, shared)}."
            )
