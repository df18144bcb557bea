"""Job evaluate: what a checkpoint makes of the whole evaluation split, in numbers and pictures."""

import time

import jax
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluate import evaluate
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.evaluation.step import jit_eval_step, usual_scales
from alexnet_jax.experiment import data_options, read_options
from alexnet_jax.parallel.distributed import monitor_processes
from alexnet_jax.parallel.mesh import make_layout, parameter_specs, replicated, shardings
from alexnet_jax.reports import evaluation
from alexnet_jax.runtime import progress
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import TrainedModel, load


def run(command: Command, console: Console) -> None:
    """Evaluates `evaluation.checkpoint` of the workdir; process 0 leaves its report there.

    Raises:
      InputError: the workdir holds no checkpoint, or the data are not of its kind.
    """
    config: ConfigDict = command.config
    workdir = Workdir(command.workdir)
    _check_pictures(workdir, config)
    with monitor_processes():
        trained = load(command.workdir, config.evaluation.checkpoint)
        source = open_source(data_options(config), config.data.eval_split)
        _check_classes(command, trained, source)
        start = time.monotonic()
        predictions = predict_split(config, trained, source, console)
    if jax.process_index() > 0:
        return
    about = {
        "checkpoint": trained.step,
        "split": source.split,
        "views": config.evaluation.views,
        **scales_of(config, trained),
        "unreadable": len(source) - len(predictions),
        "seconds": round(time.monotonic() - start, 1),
    }
    evaluation.write(workdir, about, predictions, source, console)


def predict_split(
    config: ConfigDict, trained: TrainedModel, source: Source, console: Console
) -> Predictions:
    """Returns what the net says of a split, by the views and on the devices that the config names.

    Args:
      config: the full tree; reads evaluation, parallel, and data's threads and prefetch.
      trained: the net.
      source: the split.
      console: for the progress bar.
    """
    layout = make_layout(config.parallel.strategy, config.parallel.devices)
    batch_size = config.evaluation.batch_size or config.train.batch_size
    variables, statistics = jax.device_get((trained.variables, trained.statistics))
    specs = parameter_specs(variables, layout)
    steps = -(-len(source) // batch_size)
    with progress.bar(console, f"{len(source):,} pictures") as advance:
        return evaluate(
            jit_eval_step(
                trained.model,
                trained.augmentation,
                layout,
                view=config.evaluation.views,
                scales=config.evaluation.scales,
            ),
            jax.device_put(variables, shardings(specs, layout.mesh)),
            jax.device_put(statistics, replicated(statistics, layout.mesh)),
            source,
            layout.mesh,
            batch_size=batch_size,
            read=read_options(config),
            progress=lambda step: advance(step, steps),
        )


def scales_of(config: ConfigDict, trained: TrainedModel) -> dict[str, tuple[int, ...]]:
    """Returns the sides that a dense evaluation resizes pictures to, as {"scales": sides}."""
    if config.evaluation.views != "dense":
        return {}
    usual = usual_scales(trained.augmentation.crop_size, config.data.image_size)
    return {"scales": config.evaluation.scales or usual}


def _check_pictures(workdir: Workdir, config: ConfigDict) -> None:
    """Raises InputError where the pictures asked for are not like those of the run."""
    trained_on = workdir.read_config()["data"]
    for name in ("image_size", "channels"):
        if config.data[name] != trained_on[name]:
            raise InputError(
                f"data.{name} is {config.data[name]}, but the run in {workdir.path} was trained "
                f"with {trained_on[name]}: give that run's config."
            )


def _check_classes(command: Command, trained: TrainedModel, source: Source) -> None:
    """Raises InputError where the split has other classes than the net."""
    if source.class_names != trained.class_names:
        raise InputError(
            f"The net of {command.workdir} was trained on other classes than those of the split "
            f"{command.config.data.eval_split!r}: {len(trained.class_names)} there, "
            f"{len(source.class_names)} here."
        )
