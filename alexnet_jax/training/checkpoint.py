"""Checkpoints by Orbax: asynchronous, atomic, with checksums, the newest and the best kept."""

import hashlib
import json
import logging
import textwrap
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from jax import lax
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from alexnet_jax.errors import InputError
from alexnet_jax.training.state import TrainState

FORMAT = 1
_log = logging.getLogger(__name__)
absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax warns of each option it adapts
logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # tells again what restoring raises


class DamagedError(InputError):
    """A checkpoint cannot be read, or its arrays are not those that were saved."""


class Checkpoints:
    """The checkpoints of a run, one folder a step; each holds `state` and `about` (JSON)."""

    def __init__(self, folder: Path, *, keep: int = 1, keep_best: int = 1, read_only: bool = False):
        """Opens the folder.

        Args:
          folder: where they are.
          keep: newest ones kept.
          keep_best: ones of highest top-1 kept besides.
          read_only: whether nothing will be saved; the folder must exist then.
        """
        policies = [LatestN(keep)]
        if keep_best:
            policies.append(
                BestN(
                    get_metric_fn=lambda metrics: metrics["top1"],
                    n=keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=AnyPreservationPolicy(policies),
                best_fn=lambda metrics: metrics["top1"],
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
            item_names=("state", "about"),
        )
        self._folder = folder

    def save(
        self, state: TrainState, about: Mapping[str, Any], top1: float | None, *, wait: bool = False
    ) -> None:
        """Saves a state in the background; a kill leaves the checkpoint whole or absent.

        Args:
          state: the state; may be donated as soon as this returns.
          about: what is stored beside it as JSON: config, class names, preprocessing, clock.
          top1: validation top-1 at this step (a fraction), if it was evaluated.
          wait: whether to return only when it is on disk.
        """
        step = int(state.step)
        if step in self._manager.all_steps():  # one that could not be read
            self._manager.delete(step)
        about = {
            **about,
            "format": FORMAT,
            "arrays": _describe(state),
            "checksums": checksums(state),
            "versions": {name: version(name) for name in ("alexnet_jax", "jax", "flax", "optax")},
        }
        about["seal"] = _seal(about)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), about=ocp.args.JsonSave(about)
            ),
            metrics=None if top1 is None else {"top1": top1},
            force=True,
        )
        if wait:
            self._manager.wait_until_finished()

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def find(self, which: str) -> int:
        """Returns the step that 'best', 'latest' or a number stands for.

        Raises:
          InputError: there is none.
        """
        steps = self.steps()
        if not steps:
            raise InputError(f"There is no checkpoint in {self._folder}.")
        if which == "latest":
            return steps[-1]
        if which == "best":
            best = self._manager.best_step()
            return steps[-1] if best is None else best
        if not which.isdecimal() or int(which) not in steps:
            listed = ", ".join(map(str, steps))
            raise InputError(f"There is no checkpoint {which!r} in {self._folder}, only {listed}.")
        return int(which)

    def about(self, step: int) -> dict[str, Any]:
        """Returns the JSON stored beside a state.

        Raises:
          DamagedError: it cannot be read.
          InputError: it is of a later format.
        """
        path = self._folder / str(step) / "about" / "metadata"
        try:
            about = json.loads(path.read_text())
            if about.pop("seal") != _seal(about):
                raise ValueError("its description is not what was saved")
            found = about["format"]
        except (OSError, ValueError, KeyError) as error:
            raise DamagedError(
                f"The checkpoint {self._folder / str(step)} is damaged: {error}."
            ) from error
        if found > FORMAT:
            raise InputError(
                f"The checkpoint {self._folder / str(step)} has format {found}; this version "
                f"of alexnet_jax reads up to {FORMAT}: update it."
            )
        return about

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """Returns the state of a step, laid out as `abstract` says, its checksums verified.

        Raises:
          DamagedError: it cannot be read, or it is not what was saved.
          InputError: it belongs to another net or optimizer.
        """
        about = self.about(step)
        expected, found = _describe(abstract), about["arrays"]
        if expected != found:
            raise InputError(
                f"The checkpoint {self._folder / str(step)} does not fit this config:\n"
                + _differences(expected, found)
            )
        try:
            restored = self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            )
        except Exception as error:  # tensorstore has no error class of its own
            reason = textwrap.shorten(str(error), 200)  # its messages run to many pages
            raise DamagedError(
                f"The checkpoint {self._folder / str(step)} cannot be read: {reason}"
            ) from error
        state = restored["state"]
        now = checksums(state)
        wrong = [name for name, digest in about["checksums"].items() if now.get(name) != digest]
        if wrong:
            raise DamagedError(
                f"The checkpoint {self._folder / str(step)} is damaged: the checksums of "
                f"{', '.join(wrong)} differ from those saved with it."
            )
        return state

    def restore_newest(self, abstract: TrainState) -> TrainState | None:
        """Returns the newest state that is whole, or None if there is no checkpoint.

        Raises:
          DamagedError: there are checkpoints, and none is whole.
        """
        failure = None
        for step in reversed(self.steps()):
            try:
                return self.restore(step, abstract)
            except DamagedError as error:
                failure = error
                _log.warning("%s Trying the one before it.", error)
        if failure:
            raise DamagedError(
                f"No checkpoint in {self._folder} is whole. Remove the folder to start anew."
            ) from failure
        return None

    def close(self) -> None:
        """Waits for a save under way and frees the threads."""
        self._manager.wait_until_finished()
        self._manager.close()


def _seal(about: Mapping[str, Any]) -> str:
    """Returns a digest of the description, which the arrays' checksums do not cover."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _named_leaves(tree: Any) -> dict[str, Any]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _describe(tree: Any) -> dict[str, str]:
    """Returns 'dtype[shape]' of every array by name."""
    return {
        name: f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"
        for name, leaf in _named_leaves(tree).items()
    }


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> str:
    names = [
        name
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    lines = [
        f"  {name}: {found.get(name, 'absent')} there, {expected.get(name, 'absent')} here"
        for name in names[:10]
    ]
    return "\n".join(lines + (["  ..."] if len(names) > 10 else []))


def checksums(tree: Any) -> dict[str, str]:
    """Returns a digest of each array's bits by name, as 16 hexadecimal digits.

    Computed where the arrays lie, whatever their sharding. It finds damage, not forgery.
    """
    values = jax.device_get(_digests(_named_leaves(tree)))
    return {name: f"{high:08x}{low:08x}" for name, (high, low) in values.items()}


@jax.jit
def _digests(leaves: dict[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
    return {name: _digest(leaf) for name, leaf in leaves.items()}


def _digest(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two sums of the words, each times an odd number that depends on its place, modulo 2**32."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    width = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[array.dtype.itemsize]
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    words = lax.bitcast_convert_type(array, width).astype(jnp.uint32)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * jnp.uint32(size) + lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    high = jnp.sum(
        (words ^ (words >> 15)) * (place * jnp.uint32(0x9E3779B2) + jnp.uint32(1)), dtype=jnp.uint32
    )
    low = jnp.sum(
        (words + place) * (place * jnp.uint32(0x85EBCA6A) + jnp.uint32(1)), dtype=jnp.uint32
    )
    return high, low
