"""Job features: the outputs of named layers for images or the evaluation split, as files."""

import contextlib
import functools
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.image_files import list_image_files
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluate import batches_of, run_batches
from alexnet_jax.evaluation.feature_files import FEATURE_FORMATS, FeatureWriter, replace_files
from alexnet_jax.evaluation.step import jit_features_step
from alexnet_jax.experiment import data_options, read_options
from alexnet_jax.jobs.predict import (
    image_source,
    log_unreadable,
    output_folder,
    padded_size,
    raise_if_unreadable,
)
from alexnet_jax.models import create_spec, list_models
from alexnet_jax.models.activations import default_layer, layer_names, stop_of
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.parallel.mesh import make_layout, put_model
from alexnet_jax.runtime.files import partial_folder
from alexnet_jax.runtime.progress import Progress
from alexnet_jax.trained_model import TrainedModel, load_for

ADVICE = "Free space there, or set another folder with --config.features.output=DIR."


def run(command: Command, console: Console) -> None:
    """Writes `features.layers` of the images; unreadable ones are an error at the end.

    Raises:
      InputError: images are missing or unreadable, the model cannot be loaded or has no such layer,
        or the files cannot be written.
    """
    options = command.config.features
    paths = list_image_files(options.images) if options.images else None
    if not paths and "data.source" not in command.given:
        raise InputError(
            "features.images: name images, or the dataset whose evaluation split is meant "
            "(--config.data.source=folder --config.data.root=DIR)."
        )
    trained, config = load_for(command)
    if paths:
        source = image_source(paths, trained)
    else:
        source = open_source(data_options(config), config.data.eval_split)
    folder = output_folder(command, options.output, "features")
    with partial_folder(folder, ADVICE) as partial:
        with contextlib.closing(FEATURE_FORMATS[options.format](partial)) as writer:
            unreadable = write_features(source, trained, writer, config, console)
        names = replace_files(partial, folder, _layers_of_all_models(trained))
    console.print(f"{folder}: {', '.join(names)}", markup=False, soft_wrap=True)
    raise_if_unreadable(source, unreadable, folder)


def write_features(
    source: Source,
    trained: TrainedModel,
    writer: FeatureWriter,
    config: ConfigDict,
    console: Console,
) -> dict[int, str]:
    """Writes the features of all readable images, in order.

    Args:
      source: the images.
      trained: the model.
      writer: takes them.
      config: how: its sections `features`, `parallel` and `data`.
      console: shows the progress.

    Returns:
      Why images are unreadable, by index.
    """
    options, labeled = config.features, bool(source.class_names)
    layers = _layers(options.layers, trained.model.spec)
    layout = make_layout(_strategy(config.parallel.strategy), config.parallel.devices)
    step = functools.partial(
        jit_features_step(trained.model, trained.augmentation, layout, layers),
        *put_model(trained.variables, trained.statistics, trained.model.spec, layout),
    )
    batches = batches_of(source, padded_size(len(source), options.batch_size), layout.mesh)
    unreadable = dict[int, str]()
    with Progress(console, "batches of features", len(batches)) as progress:
        for (batch, broken), features in run_batches(
            step, batches, layout.mesh, read_options(config), progress.advance
        ):
            rows = np.flatnonzero(batch.mask)
            arrays = {name: features[name][rows] for name in layers}
            if labeled:
                arrays["labels"] = batch.labels[rows]
            names = [source.describe(index) for index in batch.stream_position[rows].tolist()]
            writer.append(names, arrays)
            unreadable |= log_unreadable(source, broken)
    return unreadable


def _layers(given: Sequence[str], spec: ModelSpec) -> Sequence[str]:
    """Returns the layers given, else the default one.

    Raises:
      InputError: the model has no layer of a name.
    """
    for name in given:
        try:
            stop_of(spec, name)
        except InputError as error:
            raise InputError(f"--config.features.layers: {error}") from error
    return given or [default_layer(spec)]


def _layers_of_all_models(trained: TrainedModel) -> set[str]:
    """Returns the names of all layers of this model and of those that come with the program."""
    specs = [trained.model.spec, *map(create_spec, list_models())]
    return {name for spec in specs for name in layer_names(spec)}


def _strategy(strategy: str) -> str:
    """Returns a strategy of whole layers on every device, so that any of them can be captured."""
    return strategy if strategy == "single" else "data"
