"""Models under this package's own names, with or without its metadata.

Arrays are named as in `layout.own_layout`; `mean` is the mean image. The metadata is JSON: the
config keys of the model and its preprocessing, and the classes.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from flax import traverse_util

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.weights.layout import (
    CAFFE_PIXELS,
    TORCHVISION_PIXELS,
    Arrays,
    Config,
    Layout,
    from_params,
    mean_image,
    num_changes,
    own_layout,
    spec_of,
    to_params,
)
from alexnet_jax.weights.model_file import MODEL, ModelFile, ReadOptions

MEAN = "mean"
_FLAX_NAME = re.compile(r"(Conv|Dense)_(\d)/")  # Flax's own, of unnamed layers


def metadata_of(model_file: ModelFile) -> str:
    """Returns the metadata of a model."""
    config = {path: x for path, x in model_file.config.items() if MODEL.fullmatch(path)}
    classes = model_file.classes._asdict() if model_file.classes else None
    return json.dumps({"config": config, "classes": classes})


def arrays_of(model_file: ModelFile) -> dict[str, np.ndarray]:
    """Returns all arrays of a model by name."""
    arrays = from_params(model_file, own_layout(model_file.config))
    return arrays if model_file.mean is None else {**arrays, MEAN: model_file.mean}


def arrays_in(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the parameters and running statistics of a tree by name.

    These are at "params" and "batch_stats", as in Flax's TrainState; otherwise, the whole tree.
    """
    stats = {"batch_stats": tree["batch_stats"]} if "batch_stats" in tree else {}
    while isinstance(tree.get("params"), dict):
        tree = tree["params"]
    flat = traverse_util.flatten_dict({**tree, **stats}, sep="/")
    return {name: array for name, array in flat.items() if isinstance(array, np.ndarray)}


def read_metadata(text: str) -> tuple[dict[str, Any], ClassTable | None]:
    """Returns the config keys and the classes of a model from its metadata.

    Raises:
      InputError: it is not what `metadata_of` returns.
    """
    try:
        metadata = json.loads(text)
        config = {
            path: tuple(value) if isinstance(value, list) else value
            for path, value in metadata["config"].items()
            if MODEL.fullmatch(path)
        }
        table = metadata["classes"] and ClassTable(*map(tuple, metadata["classes"].values()))
        names = [*table.ids, *table.labels] if table else []
        if not all(isinstance(name, str) for name in [config["model.name"], *names]):
            raise TypeError("a name is not text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"has damaged metadata ({error!s:.100}).") from error
    return config, table


def to_model(
    arrays: Arrays,
    metadata: str | None,
    options: ReadOptions,
    *notes: str,
    layout_of: Callable[[Config], Layout] = own_layout,
) -> ModelFile:
    """Returns the model that named arrays hold.

    Args:
      arrays: by name; parameters may be below "params/".
      metadata: of the model; None: it is inferred from names and shapes.
      options: its model overrides that of the metadata.
      *notes: the format's own.
      layout_of: returns the layout of a config; the axes of the mean image are its `flattening`.

    Raises:
      InputError: they do not fit the model, or several models fit.
    """
    params = {_own_name(name): array for name, array in arrays.items()}
    if len(params) < len(arrays):
        raise InputError("has an array twice, with and without the prefix 'params/'.")
    mean = params.pop(MEAN, None)
    config, classes = read_metadata(metadata) if metadata else (None, None)
    if config is None:
        config = _config_of(options.model or _model_of(params, options.partial))
        notes = (
            *notes,
            "The file does not store its preprocessing; the usual one of its model is assumed.",
        )
    elif options.model:
        config = {path: x for path, x in config.items() if not path.startswith("model.")}
        config["model.name"] = options.model
    layout = layout_of(config)
    found = to_params(params, layout, options, *notes)
    image = None if mean is None else mean_image(mean, layout.flattening)
    return dataclasses.replace(found, mean=image, classes=classes)


def _own_name(name: str) -> str:
    """Returns this package's name of an array: without "params/", and conv1 for Flax's Conv_0."""

    def named(match: re.Match[str]) -> str:
        kind, index = match.groups()
        return f"conv{int(index) + 1}/" if kind == "Conv" else f"fc{int(index) + 6}/"

    return _FLAX_NAME.sub(named, name.removeprefix("params/"), count=1)


def _model_of(arrays: Arrays, partial: bool) -> str:
    """Returns the name of the only model that fits arrays with the fewest changes of its fields.

    Raises:
      InputError: none does, or several.
    """
    layouts = {name: own_layout({"model.name": name}) for name in VARIANTS}
    changes = {name: num_changes(arrays, layout, partial) for name, layout in layouts.items()}
    fewest = min(changes.values())
    best = [name for name, count in changes.items() if count == fewest]
    if fewest == math.inf:
        found = ", ".join(sorted(arrays)[:5])
        raise InputError(f"fits no model of this package: set weights.model. Found: {found:.200}.")
    if len(best) > 1:
        raise InputError(
            f"fits several models by its shapes ({', '.join(best)}): set weights.model."
        )
    return best[0]


def _config_of(model: str) -> dict[str, Any]:
    """Returns the config of a model with the preprocessing that is usual for it."""
    config: dict[str, Any] = {"model.name": model}
    spec = spec_of(config)
    pixels: Config = {"augment.mean": "none", "data.channels": spec.channels}
    if spec.channels == 3:
        pixels = TORCHVISION_PIXELS if model == "torchvision" else CAFFE_PIXELS
    size = pixels.get("data.image_size", 256) if spec.input_size > 200 else spec.input_size
    return {**pixels, **config, "data.image_size": size}
