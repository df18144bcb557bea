"""Writes labeled images of any layout as one dataset of one image size, in parallel.

While a dataset is being written, its folder holds the complete shards and a folder `unfinished`
with the settings and a ShardInfo for each complete shard. The manifest is written last: a dataset
is complete once its manifest exists. The same command resumes an interrupted job: it writes the
shards that have no ShardInfo.
"""

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED, labels_file, statistics_file
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import shards
from alexnet_jax.prepare.inputs import Inputs, fingerprint, name_of
from alexnet_jax.prepare.shards import PrepareOptions, ShardInfo, ShardJob
from alexnet_jax.runtime.files import locked, write_atomically

REPORT = "report.json"


class Report(NamedTuple):
    """The result of preparing a dataset.

    Attributes:
      counts: number of images prepared, by split.
      unreadable: [name, reason] of every image that was skipped.
      warnings: possible problems of the dataset, one sentence each.
    """

    counts: dict[str, int]
    unreadable: list[list[str]]
    warnings: list[str]

    def save(self, path: Path) -> None:
        """Writes the report as JSON."""
        path.write_text(json.dumps(self._asdict(), indent=1) + "\n")


def prepare(inputs: Inputs, options: PrepareOptions) -> Report:
    """Writes a dataset or resumes writing it; does nothing if it is complete already.

    The files do not depend on the number of processes. Images that are files are spread so that
    every shard has its share of all classes: shard i of k holds every k-th image from the i-th on.

    Args:
      inputs: the images.
      options: how to write them.

    Raises:
      InputError: too many images are unreadable, or the folder holds other files, cannot be
        written, or is being written by another process.
    """
    root = options.output
    settings: dict[str, Any] = options.image_format._asdict()
    settings |= {"shard_size": options.shard_size, "inputs": fingerprint(inputs)}
    try:
        if not _was_written(root / MANIFEST, settings):
            str(root).encode()  # array_record only takes paths in UTF-8
            if root.is_dir() and any(root.iterdir()) and not (root / UNFINISHED).is_dir():
                raise InputError(f"{root} holds other files: set another --config.prepare.output.")
            (root / UNFINISHED).mkdir(parents=True, exist_ok=True)
            with locked(root / UNFINISHED / "lock", str(root)):
                if not _was_written(root / MANIFEST, settings):  # by another process meanwhile
                    _write_dataset(inputs, options, settings)
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{root} cannot be written ({getattr(error, 'strerror', None) or error}): free some "
            "space or set another --config.prepare.output. Complete shards are kept."
        ) from error
    return Report(**json.loads((root / REPORT).read_text()))


def _was_written(path: Path, settings: Mapping[str, Any]) -> bool:
    """Returns whether a file exists that records settings: a manifest, or that of `unfinished`.

    Raises:
      InputError: the settings recorded are others.
    """
    if not path.exists():
        return False
    old = json.loads(path.read_text())
    if changed := [name for name in settings if old.get(name) != settings[name]]:
        raise InputError(
            f"{path} was written with other {', '.join(changed)}: delete the dataset, or set "
            "another --config.prepare.output."
        )
    return True


def _write_dataset(inputs: Inputs, options: PrepareOptions, settings: dict[str, Any]) -> None:
    """Writes the shards that are missing, then everything else.

    Raises:
      InputError: raw images, whose size is known, cannot fit, or more images are unreadable than
        allowed.
    """
    root, stored, total = options.output, options.image_format, sum(map(len, inputs.values()))
    if not _was_written(root / UNFINISHED / "settings.json", settings):
        needed, free = total * stored.size**2 * stored.channels, shutil.disk_usage(root).free
        if stored.format == "raw" and needed > free:
            raise InputError(
                f"{root} has {free / 1e9:.1f} GB free, but raw images need {needed / 1e9:.1f} GB: "
                "set another --config.prepare.output, or --config.prepare.format=jpeg."
            )
        write_atomically(root / UNFINISHED / "settings.json", json.dumps(settings))
    jobs = list(_shard_jobs(inputs, options))
    unreadable: list[list[str]] = []
    with contextlib.closing(shards.write_shards(inputs, options, jobs)) as complete:
        for job in complete:
            unreadable += ShardInfo.load([job]).unreadable.tolist()
            if len(unreadable) > options.max_unreadable * total:
                path = root / UNFINISHED / REPORT
                Report({}, sorted(unreadable), []).save(path)
                name, reason = unreadable[0]
                raise InputError(
                    f"Unreadable images: {len(unreadable)}, such as {name} ({reason}); see {path}. "
                    "Fix them, or allow more with --config.prepare.max_unreadable."
                )
    _finalize(inputs, jobs, settings, root)


def _shard_jobs(inputs: Inputs, options: PrepareOptions) -> Iterator[ShardJob]:
    """Yields all shards, split by split."""
    root = options.output
    suffix = "uint8" if options.image_format.format == "raw" else "array_record"
    for split, source in inputs.items():
        indices, count = np.arange(len(source)), -(-len(source) // options.shard_size)
        if source.path(0) is not None:  # files, in the order of their classes: spread them
            indices = np.argsort(indices % count, kind="stable")
        for number, part in enumerate(np.array_split(indices, count)):
            data = root / f"images-{split}.{suffix}-{number:05d}-of-{count:05d}"  # as in TFDS
            yield ShardJob(split, part, data, root / UNFINISHED / f"{split}-{number:05d}.npz")


def _finalize(inputs: Inputs, jobs: list[ShardJob], settings: dict[str, Any], root: Path) -> None:
    """Writes all files of a dataset except its shards, the manifest last.

    Args:
      inputs: the images.
      jobs: all shards, which are complete.
      settings: written to the manifest; the fields of ImageFormat are among them.
      root: the folder of the dataset.

    Raises:
      InputError: no image of a split is readable.
      OSError: a file cannot be written.
    """
    table = next(iter(inputs.values())).classes
    infos = {name: ShardInfo.load(job for job in jobs if job.split == name) for name in inputs}
    class_counts = {}
    splits: dict[str, Any] = {}
    for split, info in infos.items():
        labels = info.examples["label"]
        if not len(labels):
            raise InputError(f"No image of the split {split!r} can be read.")
        class_counts[split] = np.bincount(labels[labels >= 0], minlength=len(table.ids))
        sums = RunningStatistics(info.image, info.products, len(labels))
        np.save(labels_file(root, split), labels)
        sums.statistics(class_counts[split]).save(statistics_file(root, split))
        splits[split] = [
            {"name": name, "examples": n, "bytes": size} for name, n, size in info.shards.tolist()
        ]
    manifest = settings | {"class_ids": table.ids, "class_labels": table.labels, "splits": splits}
    if manifest["format"] == "jpeg":
        _write_tfds_files(root, manifest, infos)
    Report(
        {split: len(info.examples) for split, info in infos.items()},
        [problem for info in infos.values() for problem in info.unreadable.tolist()],
        [*_doubtful_classes(table.ids, class_counts), *_duplicates(inputs, infos)],
    ).save(root / REPORT)
    partial = root / UNFINISHED / MANIFEST  # removed with its folder if the program is killed
    partial.write_text(json.dumps(manifest, indent=1) + "\n")
    partial.replace(root / MANIFEST)


def _write_tfds_files(root: Path, manifest: dict[str, Any], infos: dict[str, ShardInfo]) -> None:
    """Writes the files that make array_record shards a TFDS dataset, without TensorFlow.

    They are features.json, the label names and, last, dataset_info.json.
    """
    side = None if manifest["resize"] == "short_side" else manifest["size"]
    shape = (side, side, manifest["channels"])
    tfds.folder_dataset.write_metadata(
        data_dir=root,
        features={
            "file_name": tfds.features.Text(),
            "image": tfds.features.Image(shape=shape, encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=manifest["class_ids"]),
        },
        split_infos=[
            tfds.core.SplitInfo(
                split, info.shards["examples"].tolist(), info.examples["size"].sum()
            )
            for split, info in infos.items()
        ],
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


def _duplicates(inputs: Inputs, infos: Mapping[str, ShardInfo]) -> Iterator[str]:
    """Yields a sentence for each split with repeated images, and each pair that shares images."""
    for split, info in infos.items():
        examples = info.examples[np.argsort(info.examples["checksum"], kind="stable")]
        is_repeat = np.diff(examples["checksum"]) == 0
        originals, repeats = examples[:-1][is_repeat], examples[1:][is_repeat]
        if len(repeats):
            name = name_of(inputs[split], repeats["index"].item(0))
            conflicts = np.count_nonzero(repeats["label"] != originals["label"])
            yield (
                f"The split {split!r} repeats {len(repeats)} images, {conflicts} of them with "
                f"another label, such as {name}."
            )
    for first, second in itertools.combinations(infos, 2):
        examples = infos[second].examples
        shared = examples[np.isin(examples["checksum"], infos[first].examples["checksum"])]
        if len(shared):
            name = name_of(inputs[second], shared["index"].item(0))
            yield f"The splits {first!r} and {second!r} share {len(shared)} images, such as {name}."
