"""Job import_weights: makes a workdir, as of a finished run, of another program's weights."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from alexnet_jax import schema, weights
from alexnet_jax.config.checks import changed_keys
from alexnet_jax.config.command_line import Command, run_of
from alexnet_jax.errors import EXIT_DONE, InputError
from alexnet_jax.models.summary import as_table, layer_table
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import TrainedModel, config_with, of_model_file
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.weights.model_file import PREPROCESSING

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Imports `weights.file`; logs what was inferred and prints the layers.

    Raises:
      InputError: the file cannot be read or does not fit a model, or the workdir is in use.
    """
    options = weights.ReadOptions(**command.config.weights.to_dict())
    path = Path(options.file or "").expanduser()
    if not options.file or run_of(path):
        raise InputError(f"weights.file: set a weight file to import, not {options.file}.")
    model_file = weights.read(path, options)
    for note in model_file.notes:
        _log.info("%s", note)
    trained = of_model_file(_with_own_preprocessing(model_file, command))
    config = config_with(command, trained)
    workdir = Workdir(command.workdir)
    with workdir.lock():
        if any(workdir.checkpoints.glob("*")):
            raise InputError(
                f"The workdir {workdir.path} holds a run or imported weights already: set another "
                "--workdir."
            )
        workdir.create_or_resume(config.to_dict(), changed_keys)
        _save(workdir, trained, {"config": config.to_dict(), "imported": model_file.notes})
        workdir.write_status("done", step=0, exit_code=EXIT_DONE)
    rows = layer_table(trained.model.spec, trained.model.num_classes)
    console.print(as_table(rows, f"{options.file}: {config.model.name}"))
    if model_file.fresh:
        _log.warning("Not in the file, and drawn at random: %s.", ", ".join(model_file.fresh))
    console.print(f"The model is in {workdir.path}: {trained}")


def _with_own_preprocessing(model_file: weights.ModelFile, command: Command) -> weights.ModelFile:
    """Returns a model with the preprocessing that the command sets: many files have none."""
    given = schema.flatten(command.config.to_dict())
    own = {key: given[key] for key in command.given & given.keys() if PREPROCESSING.fullmatch(key)}
    if own:
        _log.info("Set by this command: %s.", ", ".join(sorted(own)))
    return dataclasses.replace(model_file, config={**model_file.config, **own})


def _save(workdir: Workdir, trained: TrainedModel, metadata: dict[str, Any]) -> None:
    """Saves a model as the checkpoint of step 0, without what only training needs."""
    variables = {"batch_stats": {}, **trained.variables}
    arrays = {"step": np.int32(0), **variables, "statistics": trained.statistics}
    classes = {"class_names": trained.class_names, "class_labels": trained.class_labels}
    metadata = {**metadata, **classes, "num_examples": 1}  # durations in epochs need some
    with contextlib.closing(Checkpoints(workdir.checkpoints)) as checkpoints:
        checkpoints.save(jax.device_get(arrays), metadata, top1=None)
        checkpoints.verify(wait=True)
