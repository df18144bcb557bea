"""How fast each strategy trains the paper's net on two devices, over one device.

    python -m benchmarks.strategies [--batch_size=128] [--steps=1] [--rounds=5]

Every step is compiled first and has run once; then all take turns, round after round, each on one
batch that lies on its devices. Ratios are medians of the rounds' own; `_over_plan` is to what
`config.job=plan` tells of this CPU. Two devices of a CPU share its cores with each other, and a
single one has them all: the best that a ratio can be is about 1.
"""

import gc
import json
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import flags

import benchmarks
from alexnet_jax.config import command_line
from alexnet_jax.data.pipeline import Batch
from alexnet_jax.experiment import Experiment
from alexnet_jax.jobs.estimate import train_step_work
from alexnet_jax.parallel.estimate import Work, estimate
from alexnet_jax.parallel.measured_cpu import measure_cpu
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.runtime import devices
from alexnet_jax.training.state import TrainState

_BATCH = flags.DEFINE_integer("batch_size", 128, "Pictures of a step over all devices.")
_STEPS = flags.DEFINE_integer("steps", 1, "Steps that are timed together.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each strategy.", lower_bound=1)

STRATEGIES = ("single", "data", "tower", "hybrid", "stage")
DEVICES, CLASSES, PICTURES = 2, 1000, 1_281_167


def experiment_of(strategy: str) -> Experiment:
    """Returns the paper's training under a strategy."""
    words = [
        "--config=configs/paper.py",
        f"--config.parallel.strategy={strategy}",
        f"--config.train.batch_size={_BATCH.value}",
        "--config.augment.mean=channel",
    ]
    command = command_line.parse_valid(words)
    return Experiment.from_config(command.config, CLASSES, PICTURES)


def random_batch(experiment: Experiment) -> Batch:
    """Returns noise: the time of a step does not depend on what the pictures show."""
    rng = np.random.default_rng(0)
    size = experiment.batch_size
    return Batch(
        images=rng.integers(0, 256, (size, *experiment.image_shape), np.uint8),
        labels=rng.integers(0, CLASSES, size).astype(np.int32),
        mask=np.ones(size, np.float32),
        stream_position=np.arange(size, dtype=np.uint32),
    )


def held_by_the_fullest(state: TrainState) -> int:
    """Returns the bytes of parameters and optimizer on the device that holds most of them."""
    held: dict[int, int] = {}
    for array in jax.tree.leaves((state.params, state.opt_state)):
        for shard in array.addressable_shards:
            held[shard.device.id] = held.get(shard.device.id, 0) + shard.data.nbytes
    return max(held.values())


def ready(strategy: str) -> tuple[Callable[[], float], int, Work]:
    """Returns what times some steps, in images per second; the bytes a device holds; the work."""
    experiment = experiment_of(strategy)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in experiment.statistics.items()}
    state = experiment.initial_state(zeros)
    step = one_at_a_time(experiment.compile_train_step(state))
    batch = put_batch(random_batch(experiment), experiment.mesh)
    held = held_by_the_fullest(state)
    states = [step(state, batch)[0]]
    del state

    def run() -> float:
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            states.append(step(states.pop(), batch)[0])
        jax.block_until_ready(states)
        return _STEPS.value * experiment.batch_size / (time.perf_counter() - start)

    return run, held, train_step_work(experiment)


def planned_rates(works: dict[str, Work]) -> dict[str, float]:
    """Returns the images a second that `config.job=plan` would tell for this CPU, measured now."""
    whole, part = measure_cpu(1), measure_cpu(DEVICES)
    return {
        strategy: _BATCH.value
        / estimate(work, whole if strategy == "single" else part, "float32").step
        for strategy, work in works.items()
    }


def ratio(some: list[float], others: list[float]) -> float:
    """Returns the median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(some, others, strict=True)), 3)


def main(_: list[str]) -> None:
    """Measures all by turns and prints the ratios."""
    devices.set_up(cpu_devices=DEVICES, use_cache=True)
    runs, held, works = {}, {}, {}
    for strategy in STRATEGIES:
        runs[strategy], held[strategy], works[strategy] = ready(strategy)
        gc.collect()
    rates: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
    planned: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
    for number in range(_ROUNDS.value):
        for strategy, run in runs.items():
            rates[strategy].append(run())
        for strategy, planned_rate in planned_rates(works).items():
            planned[strategy].append(planned_rate)
        for name, now in (("images/s", rates), ("as planned", planned)):
            told = ", ".join(f"{strategy} {rate[-1]:.1f}" for strategy, rate in now.items())
            print(f"round {number + 1}, {name}: {told}", flush=True)
    result = {
        f"{strategy}_ratio": ratio(rate, rates["single"])
        for strategy, rate in rates.items()
        if strategy != "single"
    }
    for strategy in STRATEGIES:
        result[f"{strategy}_over_plan"] = ratio(rates[strategy], planned[strategy])
        result[f"{strategy}_images_per_second"] = round(statistics.median(rates[strategy]), 2)
    result["tower_memory_ratio"] = round(held["tower"] / held["single"], 4)
    print(json.dumps(result))


if __name__ == "__main__":
    benchmarks.run(main)
