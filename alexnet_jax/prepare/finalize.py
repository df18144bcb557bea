"""The end of a preparation: from notes on shards to labels, statistics, report and manifest."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.data.prepared import MANIFEST, labels_file, statistics_file
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import tfds_format
from alexnet_jax.prepare.inputs import Inputs
from alexnet_jax.prepare.shards import ShardInfo, ShardJob

REPORT = "report.json"


class Report(NamedTuple):
    """What became of the pictures.

    Attributes:
      counts: pictures prepared, by split.
      unreadable: (name, reason) of every picture left out.
      warnings: what may be wrong with the set, a sentence each.
    """

    counts: dict[str, int]
    unreadable: list[tuple[str, str]]
    warnings: list[str]

    def save(self, path: Path) -> None:
        """Writes the report as JSON."""
        write_json(path, self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what `save` wrote."""
        return cls(**json.loads(path.read_text()))


class _Gathered(NamedTuple):
    """What the notes of a split add up to."""

    files: list[dict[str, Any]]
    checksums: np.ndarray
    counts: np.ndarray
    picture_bytes: int
    unreadable: list[tuple[str, str]]


def finish(
    root: Path, plan: Mapping[str, Any], inputs: Inputs, tasks: Mapping[str, list[ShardJob]]
) -> None:
    """Writes all that a set has beside its shards, the manifest last.

    Args:
      root: folder of the set.
      plan: recipe, shard size and digest of the inputs, to be kept in the manifest.
      inputs: the pictures.
      tasks: the shards of each split, every one with its note.

    Raises:
      InputError: not one picture of a split is readable.
      OSError: a file cannot be written.
    """
    recipe = next(iter(tasks.values()))[0].recipe
    splits = {split: _gather(root, split, inputs, tasks[split]) for split in tasks}
    if recipe.format == "jpeg":
        side = None if recipe.resize == "short_side" else recipe.size
        tfds_format.write(
            root,
            shape=(side, side, recipe.channels),
            class_ids=inputs.classes.ids,
            shard_lengths={
                split: [file["examples"] for file in gathered.files]
                for split, gathered in splits.items()
            },
            picture_bytes={split: gathered.picture_bytes for split, gathered in splits.items()},
        )
    Report(
        {
            split: sum(file["examples"] for file in gathered.files)
            for split, gathered in splits.items()
        },
        [problem for gathered in splits.values() for problem in gathered.unreadable],
        [*_doubtful_classes(inputs, splits), *_duplicates(tasks, splits)],
    ).save(root / REPORT)
    manifest = {
        **plan,
        "class_ids": inputs.classes.ids,
        "class_labels": inputs.classes.labels,
        "splits": {split: gathered.files for split, gathered in splits.items()},
    }
    write_json(root / MANIFEST, manifest)


def _gather(root: Path, split: str, inputs: Inputs, tasks: Sequence[ShardJob]) -> _Gathered:
    """Adds up the notes of a split, one at a time, and writes its labels and statistics."""
    recipe = tasks[0].recipe
    moments = RunningStatistics.zero((recipe.size, recipe.size, recipe.channels))
    files, labels, checksums, picture_bytes, unreadable = [], [], [], 0, []
    for task in tasks:
        note = ShardInfo.load(task.note)
        moments.merge(note.moments)
        labels.append(note.labels)
        checksums.append(note.checksums)
        unreadable += note.unreadable
        picture_bytes += int(note.sizes[0])
        files.append(
            {"name": task.data.name, "examples": len(note.labels), "bytes": int(note.sizes[1])}
        )
    if not moments.count:
        raise InputError(f"Not one picture of the split {split!r} can be read.")
    joined = np.concatenate(labels)
    counts = np.bincount(joined[joined >= 0], minlength=len(inputs.classes.ids))
    np.save(labels_file(root, split), joined)
    moments.statistics(counts).save(statistics_file(root, split))
    return _Gathered(files, np.concatenate(checksums), counts, picture_bytes, unreadable)


def _doubtful_classes(inputs: Inputs, splits: Mapping[str, _Gathered]) -> Iterator[str]:
    ids = inputs.classes.ids
    if len(ids) == 1:
        yield f"The set has one class, {ids[0]!r}: there is nothing to tell apart."
    for split, gathered in splits.items():
        empty = np.flatnonzero(gathered.counts == 0)
        if not gathered.counts.sum():
            yield f"The split {split!r} has no labels: nothing can be trained or evaluated on it."
        elif len(empty):
            yield (
                f"The split {split!r} has no pictures of {len(empty)} of the {len(ids)} classes, "
                f"such as {ids[empty[0]]!r}."
            )


def _duplicates(
    tasks: Mapping[str, list[ShardJob]], splits: Mapping[str, _Gathered]
) -> Iterator[str]:
    """Yields a sentence for each two splits that share pictures, told by their files' checksums."""
    names = list(splits)
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            common = np.isin(splits[second].checksums, splits[first].checksums)
            if common.any():
                twin = _name_of(tasks[second], splits[second], int(np.flatnonzero(common)[0]))
                yield (
                    f"The splits {first!r} and {second!r} share {common.sum()} of their pictures, "
                    f"such as {twin}."
                )


def _name_of(tasks: Sequence[ShardJob], gathered: _Gathered, index: int) -> str:
    """Returns the name of an example of a split."""
    for task, file in zip(tasks, gathered.files, strict=True):
        if index < file["examples"]:
            left_out = {name for name, _ in gathered.unreadable}
            return [p.name for p in task.pictures if p.name not in left_out][index]
        index -= file["examples"]
    raise IndexError(index)


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON so that it stands whole or not at all."""
    partial = path.with_name(f".{path.name}")
    partial.write_text(json.dumps(tree, indent=1) + "\n")
    os.replace(partial, path)
