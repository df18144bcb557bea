"""Job evaluate: a checkpoint's accuracy on the whole of the evaluation split."""

import json

import jax
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from alexnet_jax.command_line import Command
from alexnet_jax.data.sources import open_source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.accuracy import evaluate
from alexnet_jax.jobs import progress
from alexnet_jax.parallel.mesh import make_layout, replicated
from alexnet_jax.trained_model import load
from alexnet_jax.training.step import jit_eval_step
from alexnet_jax.workdir import Workdir, write_atomically


def run(command: Command, console: Console) -> None:
    """Evaluates `evaluation.checkpoint` of the workdir; writes evaluation.json there.

    Raises:
      InputError: the workdir holds no checkpoint, or the data are not of its kind.
    """
    config: ConfigDict = command.config
    workdir = Workdir(command.workdir)
    _check_pictures(workdir, config)
    trained = load(command.workdir, config.evaluation.checkpoint)
    source = open_source(config.data, config.data.eval_split)
    if source.class_names != trained.class_names:
        raise InputError(
            f"The net of {command.workdir} was trained on other classes than those of the split "
            f"{config.data.eval_split!r}: {len(trained.class_names)} there, "
            f"{len(source.class_names)} here."
        )
    layout = make_layout("data", config.parallel.devices)
    batch_size = config.evaluation.batch_size or config.train.batch_size
    weights = (trained.variables, trained.statistics)
    variables, statistics = jax.device_put(weights, replicated(weights, layout.mesh))
    steps = -(-len(source) // batch_size)
    with progress.bar(console, f"{len(source):,} pictures") as advance:
        means = evaluate(
            jit_eval_step(trained.model, trained.augmentation, layout),
            variables,
            statistics,
            source,
            layout.mesh,
            batch_size=batch_size,
            threads=config.data.threads,
            prefetch=config.data.prefetch,
            progress=lambda step: advance(step, steps),
        ).means()
    result = {"checkpoint": trained.step, "split": config.data.eval_split, **means}
    write_atomically(workdir.path / "evaluation.json", json.dumps(result, indent=2) + "\n")
    table = Table(title=f"{workdir.path}, step {trained.step}", title_justify="left")
    for heading in ("split", "examples", "loss", "top-1", "top-5"):
        table.add_column(heading, justify="right")
    table.add_row(
        config.data.eval_split,
        f"{means['count']:,}",
        f"{means['loss']:.4f}",
        f"{means['top1']:.2%}",
        f"{means['top5']:.2%}",
    )
    console.print(table)


def _check_pictures(workdir: Workdir, config: ConfigDict) -> None:
    """Raises InputError where the pictures asked for are not like those of the run."""
    trained_on = workdir.read_config()["data"]
    for name in ("image_size", "channels"):
        if config.data[name] != trained_on[name]:
            raise InputError(
                f"data.{name} is {config.data[name]}, but the run in {workdir.path} was trained "
                f"with {trained_on[name]}: give that run's config."
            )
