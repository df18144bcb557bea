"""Overhead of the training loop relative to the bare compiled step.

    python -m benchmarks.loop_overhead

For the quickstart and for configs/paper.py (enlarged handwritten digits in place of ImageNet) it
alternates between the step by itself, on one batch that is already on the devices, and the whole
program: reading, copying, logging. Each round gives the ratio of their images per second, and the
median is reported. Evaluations and checkpoints are not part of the loop's time.
"""

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

import benchmarks
from alexnet_jax.config import command_line
from alexnet_jax.data.pipeline import TrainingBatches
from alexnet_jax.data.source import open_source
from alexnet_jax.experiment import Experiment, data_options
from alexnet_jax.jobs import train
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.runtime import devices
from alexnet_jax.runtime.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Case:
    """One model to measure: its command, and the steps and rounds of each side."""

    args: tuple[str, ...]
    steps: int
    rounds: int


CASES = {
    "quickstart": Case(("--config=configs/quickstart.py",), steps=100, rounds=5),
    "paper": Case(
        (
            "--config=configs/paper.py",
            "--config.data.source=digits",
            "--config.data.eval_split=val[:1]",
            "--config.augment.mean_examples=64",
        ),
        steps=4,
        rounds=3,
    ),
}


def command_of(case: Case, workdir: str) -> command_line.Command:
    """Returns the command that trains for twice `case.steps`, with a log line for each half."""
    args = [
        *case.args,
        f"--workdir={workdir}",
        f"--config.train.duration={2 * case.steps} steps",
        f"--config.train.log_every={case.steps} steps",
        "--config.train.evaluate_every=1000000 steps",
        "--config.checkpoint.every=1000000 steps",
    ]
    return benchmarks.parse(args)


def bare_rate(case: Case) -> float:
    """Returns images per second of the compiled step on one resident batch."""
    config = command_of(case, "unused").config
    source = open_source(data_options(config), config.data.train_split)
    experiment = Experiment.from_config(config, len(source.class_names), len(source))
    zeros = {name: np.zeros(shape, np.float32) for name, shape in experiment.statistics.items()}
    state = experiment.initial_state(zeros)
    step = one_at_a_time(experiment.compile_train_step(state))
    batch_size = config.train.batch_size
    batch = put_batch(TrainingBatches(source, 0, batch_size)[0].batch, experiment.mesh)
    state, _ = step(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(case.steps):
        state, _ = step(state, batch)
    jax.block_until_ready(state)
    return case.steps * batch_size / (time.perf_counter() - start)


def loop_rate(case: Case) -> float:
    """Returns images per second of the program, from its second log line."""
    with tempfile.TemporaryDirectory() as folder:
        train.run(command_of(case, folder), Console(quiet=True))
        lines = [line for line in Workdir(Path(folder)).read_metrics() if line["split"] == "train"]
        return float(lines[-1]["images_per_second"])


def main() -> None:
    """Measures every case and prints the ratios."""
    devices.set_up(cpu_devices=None, use_cache=True)
    result = {}
    for name, case in CASES.items():
        rounds = []
        for _ in range(case.rounds):
            bare, loop = bare_rate(case), loop_rate(case)
            rounds.append((loop / bare, bare, loop))
            print(f"{name}: bare {bare:.1f}, loop {loop:.1f} images/s, ratio {loop / bare:.3f}")
        result[f"{name}_ratio"] = round(statistics.median(row[0] for row in rounds), 3)
        result[f"{name}_bare_images_per_second"] = round(max(row[1] for row in rounds), 1)
        result[f"{name}_loop_images_per_second"] = round(max(row[2] for row in rounds), 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
