"""Directions of gradients computed in bfloat16, relative to those computed in float32.

    python -m benchmarks.bfloat16 --root=DIR [--batch_size=32]

The root is a folder of images with train/. The gradients are those of the paper's model at its
initial parameters for a training batch of 224 pixels; then of the same model with average pooling;
then with tanh in place of ReLU too. Prints the cosine for every parameter.
"""

import json
from collections.abc import Mapping

import jax
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

import benchmarks
from alexnet_jax.config import command_line
from alexnet_jax.data.pipeline import Batch, TrainingBatches
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.data.statistics import statistics_of
from alexnet_jax.experiment import Experiment, data_options, statistics_options
from alexnet_jax.parallel.mesh import put_batch
from alexnet_jax.runtime import devices
from alexnet_jax.training.step import make_gradient, make_loss

_ROOT = flags.DEFINE_string("root", None, "Folder with train/.", required=True)
_BATCH = flags.DEFINE_integer("batch_size", 32, "Images of the batch.", lower_bound=1)

_AVERAGES = [f"--config.model.layers.pool{number}.kind=average" for number in (1, 2, 5)]
MODELS = {
    "paper": [],
    "averages": _AVERAGES,
    "averages and tanh": [*_AVERAGES, "--config.model.activation=tanh"],
}


def command_of(overrides: list[str], dtype: str | None) -> command_line.Command:
    """Returns the command that trains a model in a dtype."""
    return benchmarks.parse(
        [
            "--config=configs/paper.py",
            "--config.data.source=folder",
            f"--config.data.root={_ROOT.value}",
            f"--config.train.batch_size={_BATCH.value}",
            "--config.parallel.strategy=single",
            "--config.augment.mean=channel",
            "--config.augment.color_noise=none",
            f"--config.model.dtype={dtype}",
            *overrides,
        ]
    )


def gradients(
    config: ConfigDict, source: Source, statistics: Mapping[str, np.ndarray], batch: Batch
) -> dict[str, np.ndarray]:
    """Returns each parameter's gradient for a batch, at the initial parameters."""
    experiment = Experiment.from_config(config, len(source.class_names), len(source))
    loss = make_loss(experiment.model, experiment.augmentation, experiment.layout)
    gradient_of = jax.jit(make_gradient(loss, experiment.layout))
    state = experiment.initial_state(statistics)
    found = gradient_of(state, put_batch(batch, experiment.mesh)).gradients
    arrays = flatten_dict(found, sep="/")
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def cosine(some: np.ndarray, others: np.ndarray) -> float:
    """Returns the cosine of the angle between two arrays."""
    return float(np.vdot(some, others) / np.linalg.norm(some) / np.linalg.norm(others))


def main(_: list[str]) -> None:
    """Compares the gradients of every model."""
    devices.set_up(cpu_devices=1, use_cache=True)
    config = command_of([], None).config
    source = open_source(data_options(config), config.data.train_split)
    statistics = statistics_of(source, statistics_options(config), config.data.threads)
    batch = TrainingBatches(source, config.seed, _BATCH.value)[0].batch
    result = {}
    for model, overrides in MODELS.items():
        exact, rounded = (
            gradients(command_of(overrides, dtype).config, source, statistics, batch)
            for dtype in (None, "bfloat16")
        )
        result[model] = {name: round(cosine(exact[name], rounded[name]), 5) for name in exact}
        lowest = min(result[model], key=lambda name: result[model][name])
        print(f"{model}: lowest at {lowest}, {result[model][lowest]:.5f}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    benchmarks.run(main)
