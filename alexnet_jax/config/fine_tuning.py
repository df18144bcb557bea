"""Configs of fine-tuning: what they take over from a model, and the same run from scratch."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.command_line import Command, ordered_config
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.errors import InputError
from alexnet_jax.models import create_spec
from alexnet_jax.training.schedule import row_of

_PREPROCESSING = re.compile(
    r"data\.(image_size|resize|channels)|augment\.(mean|channel_mean|channel_std|scale)"
)


def inherit(command: Command) -> Command:
    """Returns a command with the model and preprocessing of `train.init_from` where not set.

    Nothing is taken over where the command sets another model or is the config of a run, which has
    all keys. Other preprocessing than there adds to the command's errors.
    """
    start, given = command.config.train.init_from, command.given
    if not start or command.file_config is None:
        return command
    try:
        source = _config_of(command.config)
    except InputError as error:
        return dataclasses.replace(command, errors=(*command.errors, f"train.init_from: {error}"))
    values = schema.flatten(command.config.to_dict())
    if "model.name" in given and values["model.name"] != source["model.name"]:
        return command
    contradictions = tuple(
        f"{path}: {values[path]!r}, but {start} was trained with {value!r}: leave it out."
        for path, value in source.items()
        if path in given and values[path] != value and _PREPROCESSING.fullmatch(path)
    )
    inherited = _inherited(source, new_head=command.config.train.init_new_head)
    values |= {path: value for path, value in inherited.items() if path not in given}
    return dataclasses.replace(
        command,
        config=ordered_config(schema.merge(SCHEMA, values)[0]).lock(),
        errors=(*command.errors, *contradictions),
    )


def _config_of(config: ConfigDict) -> dict[str, Any]:
    """Returns {path: value} of the full config of the model that a run starts from."""
    from alexnet_jax.training.warm_start import read  # slow to import
    from alexnet_jax.weights import ReadOptions

    path, options = Path(config.train.init_from).expanduser(), ReadOptions()
    found = read(path, config.train.init_checkpoint, options, arrays=False).config
    return schema.flatten(schema.merge(SCHEMA, found)[0])  # later keys at defaults


def _inherited(source: Mapping[str, Any], *, new_head: bool) -> dict[str, Any]:
    """Returns {path: value} of what a config takes over from another one."""
    model = {path: value for path, value in source.items() if path.startswith("model.")}
    options = schema.unflatten(model)["model"]
    left_out = {"model.num_classes", "model.dtype"}
    if new_head:
        left_out.add(f"model.layers.{create_spec(**options).output_layer.name}.features")
    return {
        path: value
        for path, value in source.items()
        if path not in left_out and (path in model or _PREPROCESSING.fullmatch(path))
    }


def from_scratch(config: ConfigDict) -> ConfigDict:
    """Returns the config of the same run from scratch.

    All parameters are trained, at the rates of the output layer: low rates and frozen layers are
    made for parameters that have been trained before.
    """
    tree = config.to_dict()
    plain = schema.defaults(SCHEMA)["train"]
    start = ("init_from", "init_checkpoint", "init_layers", "init_new_head", "scratch_baseline")
    tree["train"].update({name: plain[name] for name in start})
    rows, head = tree["optimizer"]["rates"], create_spec(**tree["model"]).output_layer.name
    patterns = {name: row["pattern"] for name, row in rows.items()}
    kernels, biases = (
        rows[row_of(patterns, f"Dense/{head}/{name}")] for name in ("kernel", "bias")
    )
    tree["optimizer"]["rates"] = {
        "norms": {**biases, "pattern": "Norm/"},
        "weights": {**kernels, "pattern": "kernel"},
        "biases": {**biases, "pattern": "bias"},
    }
    return ordered_config(tree).lock()
