"""Measurements, each `python -m benchmarks.NAME`; the last line printed is JSON."""

import sys
from collections.abc import Callable, Sequence

import numpy as np
from absl import app

import alexnet_jax.plots  # noqa: F401  before matplotlib: it ignores unknown backends
from alexnet_jax.config import command_line
from alexnet_jax.data.pipeline import Batch
from alexnet_jax.errors import InputError
from alexnet_jax.experiment import Experiment


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a benchmark with flags; invalid input ends it with one message and exit code 2."""
    try:
        app.run(main)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def parse(args: Sequence[str]) -> command_line.Command:
    """Returns the command of a command line.

    Raises:
      InputError: with every error of the command line.
    """
    command = command_line.parse(args)
    if command.errors:
        raise InputError("\n".join(command.errors))
    return command


def paper_experiment(strategy: str, batch_size: int, *options: str) -> Experiment:
    """Returns the paper's training on ImageNet under a strategy."""
    options = (f"parallel.strategy={strategy}", f"train.batch_size={batch_size}", *options)
    command = parse(["--config=configs/paper.py", *(f"--config.{option}" for option in options)])
    return Experiment.from_config(command.config, num_classes=1000, num_examples=1_281_167)


def random_batch(experiment: Experiment) -> Batch:
    """Returns noise: the time of a step does not depend on what the images show."""
    rng = np.random.default_rng(0)
    size = experiment.batch_size
    return Batch(
        images=rng.integers(0, 256, (size, *experiment.image_shape), np.uint8),
        labels=rng.integers(0, experiment.model.num_classes, size).astype(np.int32),
        mask=np.ones(size, np.float32),
        stream_position=np.arange(size, dtype=np.uint32),
    )
