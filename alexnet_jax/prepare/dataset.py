"""From labeled images of any layout to one dataset of one size, by any number of processes.

While a dataset is made, its folder holds complete shards and a folder `unfinished` with the
settings and a ShardInfo for each complete shard. The manifest is written last: a dataset is
complete once it exists. The same command resumes a run that was killed: it writes the shards that
have no ShardInfo.
"""

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import tfds_format, workers
from alexnet_jax.prepare.finalize import REPORT, Report, finalize
from alexnet_jax.prepare.inputs import Inputs, fingerprint
from alexnet_jax.prepare.shards import ImageFormat, ShardInfo, ShardJob, write_shard
from alexnet_jax.runtime.files import write_atomically

_SETTINGS = "settings.json"

Progress = Callable[[int, int], None]
Jobs = Mapping[str, list[ShardJob]]


@dataclass(frozen=True)
class PrepareOptions:
    """How to write a dataset.

    Attributes:
      image_format: how images are stored.
      output: folder of the dataset, created if missing.
      shard_size: the most images of a shard.
      processes: how many work at the same time.
      max_unreadable: share of all images that may be unreadable.
    """

    image_format: ImageFormat
    output: Path
    shard_size: int
    processes: int
    max_unreadable: float


def prepare(
    inputs: Inputs, options: PrepareOptions, progress: Progress = lambda done, total: None
) -> Report:
    """Writes a dataset or resumes writing it; does nothing if it is complete already.

    The files do not depend on the number of processes. Every shard takes its share of all classes:
    shard i of k holds every k-th image from the i-th on.

    Args:
      inputs: the images.
      options: how to write them.
      progress: called with images done and in all, of this run.

    Raises:
      InputError: too many images are unreadable, or the folder holds something else, cannot be
        written, or is being written by another process.
    """
    root = options.output
    settings = {
        "image_format": dataclasses.asdict(options.image_format),
        "shard_size": options.shard_size,
        "inputs": fingerprint(inputs),
    }
    try:
        if not _is_complete(root, settings):
            with _lock(root):
                if not _is_complete(root, settings):
                    _begin(inputs, options, settings)
                    jobs = _shard_jobs(inputs, options)
                    _write_shards(inputs, options, jobs, progress)
                    finalize(inputs, options.image_format, root, jobs, settings)
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{root} cannot be written ({reason}): set another --config.prepare.output."
        ) from error
    return Report.load(root / REPORT)


def _is_complete(root: Path, settings: Mapping[str, Any]) -> bool:
    """Returns whether the folder holds the complete dataset.

    Raises:
      InputError: it holds one that was made with other settings.
    """
    manifest = root / MANIFEST
    if manifest.exists():
        _compare(root, json.loads(manifest.read_text()), settings, "holds a dataset")
    return manifest.exists()


def _compare(root: Path, there: Mapping[str, Any], settings: Mapping[str, Any], what: str) -> None:
    """Raises InputError if the folder was begun with other settings."""
    old, new = ({**tree["image_format"], **tree} for tree in (there, settings))
    changed = [name for name in new if name != "image_format" and old.get(name) != new[name]]
    if changed:
        raise InputError(
            f"{root} {what} made with other {', '.join(changed)}: delete it, or set another "
            "--config.prepare.output."
        )


@contextlib.contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Creates the folder and keeps other processes from writing it.

    Raises:
      InputError: the folder holds something else, or another process is writing it.
    """
    str(root).encode()  # array_record takes no path that is not UTF-8
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / UNFINISHED
    if any(root.iterdir()) and not unfinished.is_dir() and not (root / MANIFEST).exists():
        raise InputError(f"{root} holds other files: set --config.prepare.output to a new folder.")
    unfinished.mkdir(exist_ok=True)
    with (unfinished / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"Another process is preparing {root}: wait for it.") from error
        yield


def _begin(inputs: Inputs, options: PrepareOptions, settings: Mapping[str, Any]) -> None:
    """Records the settings, or compares them with those that the dataset was begun with.

    Raises:
      InputError: they differ, or raw images, whose size is known, cannot fit on the disk.
    """
    root, image_format = options.output, options.image_format
    path = root / UNFINISHED / _SETTINGS
    if path.exists():
        _compare(root, json.loads(path.read_text()), settings, "holds an unfinished dataset")
        return
    if image_format.format == "raw":
        num_images = sum(len(source) for source in inputs.splits.values())
        needed, free = num_images * math.prod(image_format.shape), shutil.disk_usage(root).free
        if needed > free:
            raise InputError(
                f"{root} has {free / 1e9:.1f} GB free, but raw images need {needed / 1e9:.1f} GB: "
                "set another --config.prepare.output, or --config.prepare.format=jpeg."
            )
    write_atomically(path, json.dumps(settings))


def _shard_jobs(inputs: Inputs, options: PrepareOptions) -> Jobs:
    """Returns the shards of each split."""
    root, jobs = options.output, {}
    for split, source in inputs.splits.items():
        count = -(-len(source) // options.shard_size)
        jobs[split] = [
            ShardJob(
                split,
                np.arange(index, len(source), count),
                root / tfds_format.shard_name(split, index, count, options.image_format.format),
                root / UNFINISHED / f"{split}-{index:05d}.npz",
            )
            for index in range(count)
        ]
    return jobs


def _write_shards(inputs: Inputs, options: PrepareOptions, jobs: Jobs, progress: Progress) -> None:
    """Writes the shards that are missing.

    Raises:
      InputError: more images are unreadable than allowed.
    """
    every = [job for split in jobs.values() for job in split]
    missing = [job for job in every if not job.info.exists()]
    complete = (ShardInfo.load(job.info) for job in every if job.info.exists())
    unreadable = sum(len(info.unreadable) for info in complete)
    allowed = options.max_unreadable * sum(len(job.indices) for job in every)
    write = functools.partial(write_shard, inputs, options.image_format)
    results = workers.write_shards(write, missing, options.processes, progress)
    with contextlib.closing(results):
        for count in itertools.chain([0], results):
            unreadable += count
            if unreadable > allowed:
                raise _too_many_unreadable(options.output, every)


def _too_many_unreadable(root: Path, jobs: Sequence[ShardJob]) -> InputError:
    """Writes a report of the complete shards; returns the error that names it."""
    complete = [ShardInfo.load(job.info) for job in jobs if job.info.exists()]
    unreadable = [problem for info in complete for problem in info.unreadable]
    path = root / UNFINISHED / REPORT
    Report({}, unreadable, []).save(path)
    name, reason = unreadable[0]
    return InputError(
        f"Unreadable images: {len(unreadable)}, such as {name} ({reason}); {path} lists them. Fix "
        "them, or allow more with --config.prepare.max_unreadable."
    )
