"""Warm starts: what a run takes from another run, a checkpoint or a weight file."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from alexnet_jax import weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.models import ModelSpec, parameter_paths
from alexnet_jax.schema import flatten
from alexnet_jax.training.checkpoint import Checkpoints, is_step
from alexnet_jax.training.state import TrainState
from alexnet_jax.weights import ModelFile, ReadOptions

_MEASURED = ("image", "image_at_crop", "channel")  # means that are not in the config
_LISTED = 10  # parameters that do not fit

Arrays = Mapping[str, Mapping[str, Any]]  # by layer and parameter


def read(path: Path, which: str, options: ReadOptions, *, arrays: bool = True) -> ModelFile:
    """Returns the model in a workdir, a checkpoint or a weight file.

    Args:
      path: such as runs/quickstart, runs/quickstart/checkpoints/300 or alexnet.pth.
      which: for a workdir "best", "latest" or a step.
      options: for a weight file.
      arrays: whether its arrays are needed, and not only its config.

    Raises:
      InputError: there is no such model, or it is damaged.
    """
    if is_step(path):
        return _read_checkpoint(path.parent, path.name, arrays)
    if not path.exists():
        raise InputError(
            f"There is no file or folder {path}: name the workdir of a run, one of its "
            "checkpoints, or a weight file."
        )
    if (path / "checkpoints").is_dir():
        return _read_checkpoint(path / "checkpoints", which, arrays)
    return weights.read(path, options)


def _read_checkpoint(folder: Path, which: str, arrays: bool) -> ModelFile:
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        step = checkpoints.find(which)
        metadata = checkpoints.metadata(step)
        tree: dict[str, Any] = unflatten_dict(checkpoints.read(step) if arrays else {}, sep="/")
    config = flatten(metadata["config"])
    if "imported" in metadata:  # from a weight file: nothing is known of its training
        config = {path: x for path, x in config.items() if not path.startswith("optimizer.")}
    mean = tree.get("statistics", {}).get("mean")
    return ModelFile(
        config=config,
        params=tree.get("params", {}),
        batch_stats=tree.get("batch_stats", {}),
        mean=mean if config["augment.mean"] in _MEASURED else None,
        classes=ClassTable(*map(tuple, (metadata["class_names"], metadata["class_labels"]))),
        notes=(f"Checkpoint of step {step} in {folder.parent}.",),
    )


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """What a run takes from a model.

    Attributes:
      source: the model.
      path: where it is, for messages.
      pattern: regular expression of the paths of the parameters to take.
      new_head: whether the output layer stays as it is initialized.
    """

    source: ModelFile
    path: Path
    pattern: str
    new_head: bool

    def takes(self, spec: ModelSpec, tree: Arrays) -> dict[str, dict[str, bool]]:
        """Returns whether each parameter, or running statistic of a norm, of a tree is taken."""
        fresh = {*self.source.fresh, *([spec.output_layer.name] if self.new_head else ())}
        return {
            layer: {
                name: layer not in fresh and bool(re.search(self.pattern, path))
                for name, path in paths.items()
            }
            for layer, paths in parameter_paths(spec, tree).items()
        }

    def apply(self, state: TrainState, spec: ModelSpec) -> TrainState:
        """Returns a state with what is taken in place of its own.

        Raises:
          InputError: there is nothing to take, or something does not fit.
        """
        own = flatten_dict(state.variables)
        theirs = flatten_dict({kind: getattr(self.source, kind) for kind in state.variables})
        takes = {kind: self.takes(spec, tree) for kind, tree in state.variables.items()}
        taken = [key for key, is_taken in flatten_dict(takes).items() if is_taken]
        if not taken:
            raise InputError(
                f"train.init_layers={self.pattern!r} takes nothing of {self.path}: it is searched "
                "in paths such as Conv/conv1/kernel."
            )
        self._check({key: (np.shape(theirs.get(key, 0)), own[key].shape) for key in taken}, spec)
        for key in taken:
            array = np.asarray(theirs[key])
            own[key] = jax.make_array_from_callback(
                array.shape, own[key].sharding, array.__getitem__
            )
        return dataclasses.replace(state, **{"batch_stats": {}} | unflatten_dict(own))

    def _check(self, shapes: Mapping[Any, tuple[Any, Any]], spec: ModelSpec) -> None:
        """Raises InputError where parameters are absent, () there, or of another shape there."""
        head = spec.output_layer.name
        there, here = shapes.get(("params", head, "bias"), ((), ()))
        if there and there != here:
            raise InputError(
                f"{self.path} has {there[0]:,} outputs, but this run has {here[0]:,}: set "
                f"train.init_new_head=True to start with a new output layer {head}."
            )
        lines = [
            f"{'/'.join(key)}: {list(there) or 'absent'} there, {list(here)} here"
            for key, (there, here) in shapes.items()
            if there != here
        ]
        if lines:
            more = ["..."] * (len(lines) > _LISTED)
            raise InputError(
                "\n  ".join([f"{self.path} does not fit this model:", *lines[:_LISTED], *more])
                + "\nSet the model's keys as they were there, or take less by train.init_layers."
            )
