"""From labeled pictures of any layout to one set of one size, by many processes, in any order.

While a set is made, its folder holds whole shards and a folder `unfinished` with the plan and a
note on each shard that is done. The manifest is written last: only with it is the set one. A run
that was killed is repeated; it finds its notes and writes the shards that have none.
"""

import contextlib
import dataclasses
import fcntl
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.data.prepared import MANIFEST, UNFINISHED
from alexnet_jax.errors import InputError
from alexnet_jax.prepare import tfds_format, workers
from alexnet_jax.prepare.finalize import REPORT, Report, finish, write_json
from alexnet_jax.prepare.inputs import Inputs, fingerprint
from alexnet_jax.prepare.shards import ImageFormat, ShardInfo, ShardJob

_PLAN = "plan.json"


def prepare(
    inputs: Inputs,
    recipe: ImageFormat,
    root: Path,
    *,
    shard_size: int,
    processes: int,
    max_unreadable: float,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Writes the set into `root`, or goes on with it; does nothing where it stands already.

    The shards do not depend on `processes`. Every shard takes its share of all classes: shard i of
    k holds every k-th picture from the i-th on.

    Args:
      inputs: the pictures.
      recipe: how they are made.
      root: folder of the set, made where missing.
      shard_size: the most pictures of a shard.
      processes: how many work at the same time.
      max_unreadable: share of all pictures that may be unreadable.
      progress: called with pictures done and to do in this run.

    Raises:
      InputError: too many pictures are unreadable, the folder holds something else, cannot be
        written, or another process is writing it.
    """
    plan = {
        "recipe": dataclasses.asdict(recipe),
        "shard_size": shard_size,
        "inputs": fingerprint(inputs),
    }
    try:
        with _claim(root, plan, recipe, inputs) as is_done:
            if not is_done:
                tasks = _tasks(inputs, recipe, root, shard_size)
                _write_shards(tasks, processes, max_unreadable, progress)
                finish(root, plan, inputs, tasks)
            shutil.rmtree(root / UNFINISHED, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{root} cannot be written ({error.strerror}).") from error
    return Report.load(root / REPORT)


@contextlib.contextmanager
def _claim(root: Path, plan: dict[str, Any], recipe: ImageFormat, inputs: Inputs) -> Iterator[bool]:
    """Makes the folder this plan's own for a time; tells whether it holds the whole set already."""
    root.mkdir(parents=True, exist_ok=True)
    unfinished = root / UNFINISHED
    if (root / MANIFEST).exists():
        _compare(root, json.loads((root / MANIFEST).read_text()), plan, "holds a set")
        yield True
        return
    if any(root.iterdir()) and not unfinished.is_dir():
        raise InputError(f"{root} holds other files: set --config.prepare.output to a new folder.")
    unfinished.mkdir(exist_ok=True)
    with (unfinished / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"Another process is preparing {root}: wait for it.") from error
        if (unfinished / _PLAN).exists():
            there = json.loads((unfinished / _PLAN).read_text())
            _compare(root, there, plan, "holds an unfinished set")
        else:
            _refuse_full_disk(root, recipe, inputs)
            write_json(unfinished / _PLAN, plan)
        yield False


def _compare(root: Path, there: Mapping[str, Any], plan: Mapping[str, Any], what: str) -> None:
    """Raises InputError where the folder was begun with another plan."""
    old, new = ({**tree["recipe"], **tree} for tree in (there, plan))
    changed = [name for name in new if name != "recipe" and old.get(name) != new[name]]
    if changed:
        raise InputError(
            f"{root} {what} made with other {', '.join(changed)}: delete it, or set another "
            "--config.prepare.output."
        )


def _refuse_full_disk(root: Path, recipe: ImageFormat, inputs: Inputs) -> None:
    """Raises InputError where raw pictures, whose size is known, cannot fit."""
    if recipe.format == "raw":
        pictures = sum(len(split) for split in inputs.splits.values())
        needed = pictures * recipe.size**2 * recipe.channels
        free = shutil.disk_usage(root).free
        if needed > free:
            raise InputError(
                f"{root} has {free / 1e9:.1f} GB free, and raw pictures need {needed / 1e9:.1f} "
                "GB: take another --config.prepare.output, or --config.prepare.format=jpeg."
            )


def _tasks(
    inputs: Inputs, recipe: ImageFormat, root: Path, shard_size: int
) -> dict[str, list[ShardJob]]:
    """Returns the shards of each split."""
    tasks: dict[str, list[ShardJob]] = {}
    for split, pictures in inputs.splits.items():
        count = -(-len(pictures) // shard_size)
        tasks[split] = []
        for index in range(count):
            name = tfds_format.shard_name(split, index, count)
            if recipe.format == "raw":
                name = name.replace(".array_record-", ".uint8-")
            note = root / UNFINISHED / f"{split}-{index:05d}.npz"
            tasks[split].append(ShardJob(root / name, note, pictures[index::count], recipe))
    return tasks


def _write_shards(
    tasks: Mapping[str, list[ShardJob]],
    processes: int,
    max_unreadable: float,
    progress: Callable[[int, int], None],
) -> None:
    """Writes the shards that have no note yet."""
    every = [task for split in tasks.values() for task in split]
    done = [task for task in every if task.note.exists()]
    left = [task for task in every if not task.note.exists()]
    allowed = max_unreadable * sum(len(task.pictures) for task in every)
    unreadable = sum(len(ShardInfo.load(task.note).unreadable) for task in done)
    _refuse_broken(tasks, unreadable, allowed)
    with contextlib.closing(workers.write_shards(left, processes, progress)) as results:
        for count in results:
            unreadable += count
            _refuse_broken(tasks, unreadable, allowed)


def _refuse_broken(tasks: Mapping[str, list[ShardJob]], unreadable: int, allowed: float) -> None:
    if unreadable <= allowed:
        return
    notes = [
        ShardInfo.load(task.note)
        for split in tasks.values()
        for task in split
        if task.note.exists()
    ]
    listed = [problem for note in notes for problem in note.unreadable]
    path = next(iter(tasks.values()))[0].note.parent / REPORT
    Report({}, listed, []).save(path)
    name, reason = listed[0]
    raise InputError(
        f"Unreadable pictures: {unreadable}, such as {name} ({reason}); {path} lists them. Mend "
        "them, or allow more with --config.prepare.max_unreadable."
    )
