"""Checkpoints in Orbax's format: asynchronous, atomic, verified, the newest and the best kept.

The folder of a step holds two items: `state`, the arrays of a TrainState as nested dicts (of
imported weights without those that only training needs), and `metadata`, JSON. Arrays are saved
from the host, so a checkpoint knows no devices, and plain Orbax restores it anywhere as numpy
arrays:

    path = Path("runs/quickstart/checkpoints/300/state").absolute()
    tree = orbax.checkpoint.StandardCheckpointer().restore(path)
    tree["params"]["conv1"]["kernel"]
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from absl import logging as absl_logging
from flax import serialization

from alexnet_jax.errors import InputError
from alexnet_jax.parallel.mesh import on_host
from alexnet_jax.training.state import TrainState

FORMAT = 2
_log = logging.getLogger(__name__)
absl_logging.set_verbosity(absl_logging.FATAL)  # Orbax also logs what it raises, as tracebacks


class DamagedError(InputError):
    """A checkpoint cannot be read, or its arrays are not those that were saved."""


def is_step(path: Path) -> bool:
    """Returns whether a path is a checkpoint of a run, or names one that does not exist."""
    named = path.parent.name == "checkpoints" and path.parent.is_dir() and not path.exists()
    saved = any((path / part).is_dir() for part in ("state", "metadata"))  # one may be damaged
    return path.name.isdecimal() and (named or saved)


class Checkpoints:
    """The checkpoints of a run."""

    def __init__(self, folder: Path, *, keep: int = 1, keep_best: int = 1, read_only: bool = False):
        """Opens the folder.

        Args:
          folder: holds a folder for each step; created unless `read_only`.
          keep: number of newest checkpoints kept.
          keep_best: number of those with the highest top-1 kept besides.
          read_only: whether nothing will be saved.
        """
        self._folder, self._keep, self._keep_best = folder.absolute(), keep, keep_best
        self._saver = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler("state", "metadata"))
        self._unverified: int | None = None
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                self._remove_partial()

    def save(
        self, state: TrainState | Mapping[str, Any], metadata: Mapping[str, Any], top1: float | None
    ) -> None:
        """Saves a state in the background; a kill leaves the checkpoint complete or absent.

        Args:
          state: the state, which may be donated as soon as this returns; or numpy arrays of some of
            its parts, as nested dicts with the step at "step", to use and not to resume from.
          metadata: JSON to store with it: config, class names, elapsed time.
          top1: validation top-1 at this step (a fraction), if it was evaluated.

        Raises:
          InputError: this checkpoint, or the one before it, cannot be written.
        """
        self.verify(wait=True)
        if isinstance(state, TrainState):
            state = on_host(_with_key_data(state), cast(Any, state.step.sharding).mesh)
        arrays = jax.tree.map(np.array, state)
        tree = serialization.to_state_dict(arrays)
        step = int(tree["step"])
        named = _named_leaves(arrays)
        metadata = {
            **metadata,
            "format": FORMAT,
            "step": step,
            "top1": top1,
            "arrays": _describe(named),
            "checksums": _checksums(named),
            "versions": {name: version(name) for name in ("alexnet_jax", "jax", "flax", "optax")},
        }
        metadata["metadata_checksum"] = _metadata_checksum(metadata)
        with self._writing(step):
            # Orbax prints a traceback for each array that it has no space for.
            if sum(array.nbytes for array in named.values()) > shutil.disk_usage(self._folder).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._saver.save(
                self._path(step),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree), metadata=ocp.args.JsonSave(metadata)
                ),
                force=True,  # over one that could not be read
            )
        self._unverified = step

    def verify(self, *, wait: bool = False) -> None:
        """Reads the last checkpoint back once it is on disk, then deletes those not to be kept.

        Args:
          wait: whether to wait until it is on disk.

        Raises:
          InputError: it cannot be written, or what was written is damaged.
        """
        step = self._unverified
        if step is None or not (wait or self._path(step).exists()):
            return
        self._unverified = None
        with self._writing(step):
            self._saver.wait_until_finished()
            if jax.process_index() == 0:
                self.read(step)
        if jax.process_index() == 0:
            # Later ones are damaged: the run resumed from one before them.
            steps = [found for found in self.steps() if found <= step]
            kept = {*steps[-self._keep :], *self._best_first()[: self._keep_best]}
            for old in set(steps) - kept:
                shutil.rmtree(self._path(old).rename(self._path(old).with_suffix(".deleted")))

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, oldest first."""
        return sorted(int(path.name) for path in self._folder.glob("*") if path.name.isdecimal())

    def find(self, which: str | int) -> int:
        """Returns the step that "best", "latest" or a number stands for.

        Raises:
          InputError: there is none.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"There is no checkpoint in {self._folder}.")
        if which == "latest":
            return steps[-1]
        if which == "best":
            return [*self._best_first(), steps[-1]][0]
        if str(which) not in map(str, steps):
            listed = ", ".join(map(str, steps))
            raise InputError(f"There is no checkpoint {which} in {self._folder}, only {listed}.")
        return int(which)

    def _best_first(self) -> list[int]:
        """Returns the evaluated steps, the highest top-1 first; of equal ones the earlier first."""
        top1 = {}
        for step in self.steps():
            with contextlib.suppress(DamagedError):  # reported where the checkpoint is used
                top1[step] = self.metadata(step)["top1"]
        evaluated = [step for step, value in top1.items() if value is not None]
        return sorted(evaluated, key=lambda step: -top1[step])

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns the JSON stored with a state.

        Raises:
          DamagedError: it cannot be read.
          InputError: it is of another format.
        """
        with self._reading(step):
            metadata = json.loads((self._path(step) / "metadata" / "metadata").read_bytes())
            if metadata.pop("metadata_checksum") != _metadata_checksum(metadata):
                raise ValueError("its metadata is not what was saved")
            found = metadata["format"]
        if found != FORMAT:
            raise InputError(
                f"The checkpoint {self._path(step)} has format {found}; this version of "
                f"alexnet_jax reads format {FORMAT}."
            )
        return metadata

    def read(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of a state by name, such as "params/conv1/kernel", verified.

        Raises:
          DamagedError: they cannot be read, or are not those that were saved.
        """
        metadata = self.metadata(step)
        with self._reading(step):
            arrays = _read_arrays(self._path(step) / "state", metadata["arrays"])
            found, saved = _checksums(arrays), metadata["checksums"]
            wrong = [name for name in saved if found[name] != saved[name]]
            if wrong:
                raise ValueError(f"the checksums of {', '.join(wrong)} differ")
        return arrays

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Returns the state of a step, sharded as `abstract` says.

        Raises:
          DamagedError: see `read`.
          InputError: it belongs to another model or optimizer.
        """
        state: TrainState = self.restore_part(step, _with_key_data(abstract))
        return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))

    def restore_part(self, step: int, abstract: Any) -> Any:
        """Returns some of a state's arrays, such as {"params": ...}; see `restore`."""
        wanted = _describe(_named_leaves(abstract))
        parts = {name.partition("/")[0] for name in wanted}
        stored = self.metadata(step)["arrays"]
        found = {name: kind for name, kind in stored.items() if name.partition("/")[0] in parts}
        if wanted != found:
            raise InputError(
                f"The checkpoint {self._path(step)} does not fit this config:\n"
                + _differences(found, wanted)
            )
        arrays = self.read(step)
        return jax.tree.map_with_path(
            lambda path, leaf: jax.make_array_from_callback(
                leaf.shape, leaf.sharding, arrays[_name(path)].__getitem__
            ),
            abstract,
        )

    def restore_newest(
        self, abstract: TrainState, check: Callable[[dict[str, Any]], None] = lambda metadata: None
    ) -> TrainState | None:
        """Returns the newest undamaged state, or None if there is no checkpoint.

        Args:
          abstract: see `restore`.
          check: called with the metadata before the arrays are read; may raise.

        Raises:
          DamagedError: there are checkpoints, and all are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                check(self.metadata(step))
                return self.restore(step, abstract)
            except DamagedError as error:
                _log.warning("%s Trying the one before it.", error)
        if steps:
            raise DamagedError(
                f"Every checkpoint in {self._folder} is damaged. Remove the folder to start again."
            )
        return None

    def close(self) -> None:
        """Waits for a save in progress and frees the threads."""
        self._saver.close()

    def _path(self, step: int) -> Path:
        return self._folder / str(step)

    def _remove_partial(self) -> None:
        """Removes what a kill or a full disk left of a save or a deletion."""
        for path in self._folder.iterdir():
            if ".orbax-checkpoint-tmp" in path.name or path.name.endswith(".deleted"):
                shutil.rmtree(path, ignore_errors=True)

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Reports whatever goes wrong inside as damage."""
        try:
            yield
        except Exception as error:  # tensorstore has no error class of its own
            reason = textwrap.shorten(str(error), 200)  # tensorstore's run to many pages
            raise DamagedError(
                f"The checkpoint {self._path(step)} is damaged: {reason}."
            ) from error

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Reports whatever goes wrong inside, and removes what was written."""
        try:
            yield
        except Exception as error:
            self._remove_partial()
            number = re.search(r"os_error_code='(\d+)'|Errno (\d+)", str(error))
            reason = os.strerror(int(number[1] or number[2])) if number else str(error)
            reason = textwrap.shorten(reason, 200)
            message = f"The checkpoint {self._path(step)} cannot be written: {reason}."
            raise InputError(message) from error


def _with_key_data(state: TrainState) -> TrainState:
    """Returns a state, or its shapes, with the typed key as the plain array that is stored."""
    if isinstance(state.key, jax.ShapeDtypeStruct):
        data = jax.eval_shape(jax.random.key_data, state.key).update(sharding=state.key.sharding)
    else:
        data = jax.random.key_data(state.key)
    return dataclasses.replace(state, key=data)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _describe(named: Mapping[str, Any]) -> dict[str, str]:
    """Returns 'dtype[shape]' of every array by name."""
    return {name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]" for name, leaf in named.items()}


def _differences(found: Mapping[str, str], expected: Mapping[str, str]) -> str:
    """Returns a line for each array, up to ten, whose type and shape are not those expected."""
    names = sorted(name for name, _ in expected.items() ^ found.items())
    lines = [
        f"  {name}: {found.get(name, 'absent')} there, {expected.get(name, 'absent')} here"
        for name in dict.fromkeys(names)
    ]
    return "\n".join(lines[:10] + ["  ..."] * (len(lines) > 10))


def _checksums(named: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns a checksum of each array's bytes. It finds damage, not forgery."""
    return {name: hashlib.sha256(array.tobytes()).hexdigest()[:16] for name, array in named.items()}


def _metadata_checksum(metadata: Mapping[str, Any]) -> str:
    """Returns a checksum of the metadata, which the arrays' checksums do not cover."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _read_arrays(folder: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Reads arrays that Orbax wrote, a Zarr array each in one OCDBT database.

    Orbax itself reads them in an event loop that it closes at the first damaged one, whereupon each
    of the others prints a traceback of its own.
    """
    database = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder}/"}}
    opened = {
        name: tensorstore.open(
            {"driver": "zarr", "kvstore": {**database, "path": name.replace("/", ".")}}, read=True
        )
        for name in names
    }
    reads = {name: future.result().read() for name, future in opened.items()}
    return {name: future.result() for name, future in reads.items()}
