"""From labeled images of any layout to one dataset of one size, by any number of processes.

While a dataset is made, its folder holds complete shards and a folder `unfinished` with the
settings and a ShardInfo for each complete shard. The manifest is written last: a dataset is
complete once it exists. The same command resumes a run that was killed: it writes the shards that
have no ShardInfo.
"""

import contextlib
import itertools
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED
from alexnet_jax.data.source import Source
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.finalize import DATASET, REPORT, Report, finalize
from alexnet_jax.prepare.inputs import Inputs, fingerprint
from alexnet_jax.prepare.shards import PrepareOptions, Progress, ShardJob, write_shards
from alexnet_jax.runtime.files import locked, write_atomically


def prepare(
    inputs: Inputs, options: PrepareOptions, progress: Progress = lambda done, total: None
) -> Report:
    """Writes a dataset or resumes writing it; does nothing if it is complete already.

    The files do not depend on the number of processes. Of image files, every shard takes its share
    of all classes: shard i of k holds every k-th image from the i-th on.

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
        **options.image_format._asdict(),
        "shard_size": options.shard_size,
        "inputs": fingerprint(inputs),
    }
    try:
        if not _was_made(root / MANIFEST, settings):
            _create_folder(root)
            with locked(root / UNFINISHED / "lock", str(root)):
                if not _was_made(root / MANIFEST, settings):  # by another process, meanwhile
                    _make(inputs, options, settings, progress)
        shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    except (OSError, UnicodeError) as error:
        raise InputError(
            f"{root} cannot be written ({getattr(error, 'strerror', None) or error}): free some "
            "space or set another --config.prepare.output. Complete shards are kept."
        ) from error
    return Report(**json.loads((root / REPORT).read_text()))


def _was_made(path: Path, settings: Mapping[str, Any]) -> bool:
    """Returns whether there is a manifest, or the settings of an unfinished dataset.

    Raises:
      InputError: the dataset was begun with other settings.
    """
    if not path.exists():
        return False
    old = json.loads(path.read_text())
    changed = [name for name in settings if old.get(name) != settings[name]]
    if changed:
        raise InputError(
            f"{path} was written with other {', '.join(changed)}: delete the dataset, or set "
            "another --config.prepare.output."
        )
    return True


def _create_folder(root: Path) -> None:
    """Creates the folder and the one that exists until the dataset is complete.

    Raises:
      InputError: the folder holds something else.
    """
    str(root).encode()  # array_record takes no path that is not UTF-8
    if root.is_dir() and any(root.iterdir()) and not (root / UNFINISHED).is_dir():
        raise InputError(f"{root} holds other files: set --config.prepare.output to a new folder.")
    (root / UNFINISHED).mkdir(parents=True, exist_ok=True)


def _make(
    inputs: Inputs, options: PrepareOptions, settings: Mapping[str, Any], progress: Progress
) -> None:
    path = options.output / UNFINISHED / "settings.json"
    if not _was_made(path, settings):
        _refuse_full_disk(inputs, options)
        write_atomically(path, json.dumps(settings))
    jobs = {split: list(_shard_jobs(split, source, options)) for split, source in inputs.items()}
    _write_shards(inputs, options, [*itertools.chain(*jobs.values())], progress)
    finalize(inputs, jobs, settings, options.output)


def _refuse_full_disk(inputs: Inputs, options: PrepareOptions) -> None:
    """Raises InputError if raw images, whose size is known, cannot fit."""
    needed = sum(map(len, inputs.values())) * math.prod(options.image_format.shape)
    free = shutil.disk_usage(options.output).free
    if options.image_format.format == "raw" and needed > free:
        raise InputError(
            f"{options.output} has {free / 1e9:.1f} GB free, but raw images need "
            f"{needed / 1e9:.1f} GB: set another --config.prepare.output, or "
            "--config.prepare.format=jpeg."
        )


def _shard_jobs(split: str, source: Source, options: PrepareOptions) -> Iterator[ShardJob]:
    """Yields the shards of a split."""
    root, indices = options.output, np.arange(len(source))
    count = -(-len(source) // options.shard_size)
    if source.path(0) is None:  # stored in blocks, often shuffled: read in order
        parts = np.array_split(indices, count)
    else:
        parts = [indices[index::count] for index in range(count)]
    suffix = "uint8" if options.image_format.format == "raw" else "array_record"
    for index, part in enumerate(parts):
        data = root / f"{DATASET}-{split}.{suffix}-{index:05d}-of-{count:05d}"  # as TFDS names them
        yield ShardJob(split, part, data, root / UNFINISHED / f"{split}-{index:05d}.npz")


def _write_shards(
    inputs: Inputs, options: PrepareOptions, jobs: Sequence[ShardJob], progress: Progress
) -> None:
    """Writes the shards that are missing.

    Raises:
      InputError: more images are unreadable than allowed.
    """
    unreadable: list[list[str]] = []
    allowed = options.max_unreadable * sum(map(len, inputs.values()))
    with contextlib.closing(write_shards(inputs, options, jobs, progress)) as results:
        for more in results:
            unreadable += more
            if len(unreadable) > allowed:
                path = options.output / UNFINISHED / REPORT
                Report({}, sorted(unreadable), []).save(path)
                name, reason = unreadable[0]
                raise InputError(
                    f"Unreadable images: {len(unreadable)}, such as {name} ({reason}); {path} "
                    "lists them. Fix them, or allow more with --config.prepare.max_unreadable."
                )
