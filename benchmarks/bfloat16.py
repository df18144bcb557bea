"""How far gradients computed in bfloat16 point another way than those computed in float32.

    python -m benchmarks.bfloat16 --root=DIR [--batch_size=32]

The root is a folder of pictures with train/. The gradients are those of the paper's net at its
start for one training batch of 224 pixels; then of the same net with averages in place of maxima in
its pools; then with tanh in place of its ReLUs too. Prints the cosine for every parameter.
"""

import json

import jax
import numpy as np
from absl import flags

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
_BATCH = flags.DEFINE_integer("batch_size", 32, "Pictures of the batch.", lower_bound=1)

_AVERAGES = [f"--config.model.layers.pool{number}.kind=average" for number in (1, 2, 5)]
NETS = {
    "paper": [],
    "averages": _AVERAGES,
    "averages and tanh": [*_AVERAGES, "--config.model.activation=tanh"],
}


def command_of(overrides: list[str], dtype: str | None) -> command_line.Command:
    """Returns the command that trains a net in a type."""
    return command_line.parse_valid(
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
    overrides: list[str],
    dtype: str | None,
    source: Source,
    statistics: dict[str, np.ndarray],
    batch: Batch,
) -> dict[str, np.ndarray]:
    """Returns each parameter's gradient for a batch, at the net's start."""
    config = command_of(overrides, dtype).config
    experiment = Experiment.from_config(config, len(source.class_names), len(source))
    loss = make_loss(experiment.model, experiment.augmentation, experiment.layout)
    gradient = jax.jit(make_gradient(loss, experiment.layout, accumulate=1))
    state = experiment.initial_state(statistics)
    *_, found = gradient(state, put_batch(batch, experiment.mesh))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(array, np.float64)
        for path, array in jax.tree_util.tree_leaves_with_path(found)
    }


def cosine(some: np.ndarray, others: np.ndarray) -> float:
    """Returns the cosine of the angle between two arrays."""
    return float(np.vdot(some, others) / np.linalg.norm(some) / np.linalg.norm(others))


def main(_: list[str]) -> None:
    """Compares the gradients of every net."""
    devices.set_up(cpu_devices=1, use_cache=True)
    config = command_of([], None).config
    source = open_source(data_options(config), config.data.train_split)
    statistics = statistics_of(source, statistics_options(config), config.data.threads)
    batch = TrainingBatches(source, config.seed, _BATCH.value)[0].batch
    result = {}
    for net, overrides in NETS.items():
        exact, rounded = (
            gradients(overrides, dtype, source, dict(statistics), batch)
            for dtype in (None, "bfloat16")
        )
        result[net] = {name: round(cosine(exact[name], rounded[name]), 5) for name in exact}
        lowest = min(result[net], key=lambda name: result[net][name])
        print(f"{net}: lowest at {lowest}, {result[net][lowest]:.5f}", flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    benchmarks.run(main)
