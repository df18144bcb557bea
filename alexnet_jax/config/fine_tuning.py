"""Configs of fine-tuning: what they take over from a model, and the same run from scratch."""

import dataclasses
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.command_line import MODEL_JOBS, Command, ordered_config
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.config.model_keys import take_over
from alexnet_jax.errors import InputError, config_errors
from alexnet_jax.models import create_spec
from alexnet_jax.training.schedule import row_of
from alexnet_jax.weights import ReadOptions
from alexnet_jax.weights.model_file import PREPROCESSING


def inherit(command: Command) -> Command:
    """Returns a command with the model and preprocessing of `train.init_from` where not set.

    Nothing is taken over where the command sets another model, has the config of a run, which has
    all keys, or uses a trained model. Other preprocessing than there adds to the command's errors.
    """
    train, given = command.config.train, command.given
    if not train.init_from or command.file_config is None or command.job in MODEL_JOBS:
        return command
    try:
        own = _config_of(command.config)
        name = command.config.model.name if "model.name" in given else own["model"]["name"]
        if name != own["model"]["name"]:
            return command
        config = take_over(command, own, PREPROCESSING)
    except InputError as error:
        return dataclasses.replace(command, errors=(*command.errors, f"train.init_from: {error}"))
    left_out = {"num_classes", "dtype"}
    if train.init_new_head:
        left_out.add(f"layers.{create_spec(**own['model']).output_layer.name}.features")
    model = {
        f"model.{path}": value
        for path, value in schema.flatten(own["model"]).items()
        if path not in left_out and f"model.{path}" not in given
    }
    tree, _ = schema.merge(SCHEMA, {**schema.flatten(config.to_dict()), **model})
    return dataclasses.replace(command, config=ordered_config(tree).lock())


def _config_of(config: ConfigDict) -> dict[str, Any]:
    """Returns the full config tree of the model that a run starts from."""
    tree, errors = schema.merge(SCHEMA, _source_keys(config))  # newer keys at their defaults
    if errors:
        raise config_errors(errors)
    return tree


def _source_keys(config: ConfigDict) -> dict[str, Any]:
    """Returns {path: value} of the config stored with the model that a run starts from."""
    from alexnet_jax.training.warm_start import read  # slow to import

    path, options = Path(config.train.init_from).expanduser(), ReadOptions(**config.weights)
    return read(path, config.train.init_checkpoint, options, arrays=False).config


def from_scratch(config: ConfigDict) -> ConfigDict:
    """Returns the config of the same run from scratch.

    All parameters are trained, at the rates of the output layer in the run that `train.init_from`
    names, or of a weight file in this run: rates of fine-tuning are made for parameters that have
    been trained before.
    """
    tree, plain = config.to_dict(), schema.defaults(SCHEMA)["train"]
    head = create_spec(**tree["model"]).output_layer.name
    is_run = any(path.startswith("optimizer.") for path in _source_keys(config))
    rows = (_config_of(config) if is_run else tree)["optimizer"]["rates"]
    patterns = {name: row["pattern"] for name, row in rows.items()}
    kernels, biases = (
        rows[row_of(patterns, f"Dense/{head}/{name}")] for name in ("kernel", "bias")
    )
    tree["optimizer"]["rates"] = {
        "norms": {**biases, "pattern": "Norm/"},
        "weights": {**kernels, "pattern": "kernel"},
        "biases": {**biases, "pattern": "bias"},
    }
    start = ("init_from", "init_checkpoint", "init_layers", "init_new_head", "scratch_baseline")
    tree["train"].update({name: plain[name] for name in start})
    return ordered_config(tree).lock()
