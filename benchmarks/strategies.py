"""Training speed of the paper's model on two devices, by strategy, relative to one device.

    python -m benchmarks.strategies [--batch_size=128] [--steps=1] [--rounds=5]

Each step is compiled and run once; then the strategies take turns, round after round, each on one
batch that is already on its devices. Ratios are medians over the rounds; `_over_estimate` is
relative to what `config.job=estimate` predicts for this CPU. Two devices of a CPU share its cores,
and a single one has them all: no ratio can be much above 1.
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
from alexnet_jax.jobs.estimate import train_step_work
from alexnet_jax.parallel.estimate import Work, estimate, measure_cpu
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.runtime import devices
from alexnet_jax.training.state import TrainState

_BATCH = flags.DEFINE_integer("batch_size", 128, "Images per step, over all devices.")
_STEPS = flags.DEFINE_integer("steps", 1, "Steps timed together.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each strategy.", lower_bound=1)

STRATEGIES = ("single", "data", "tower", "hybrid", "stage")
DEVICES = 2


def largest_share(state: TrainState) -> int:
    """Returns the bytes of parameters and optimizer state on the device that holds the most."""
    held: dict[int, int] = {}
    for array in jax.tree.leaves((state.params, state.opt_state)):
        for shard in array.addressable_shards:
            held[shard.device.id] = held.get(shard.device.id, 0) + shard.data.nbytes
    return max(held.values())


def prepare(strategy: str) -> tuple[Callable[[], float], int, Work]:
    """Returns a function that times steps (images/s), bytes held by a device, and the work."""
    experiment = benchmarks.paper_experiment(strategy, _BATCH.value, "augment.mean=channel")
    zeros = {name: np.zeros(shape, np.float32) for name, shape in experiment.statistics.items()}
    state = experiment.initial_state(zeros)
    step = one_at_a_time(experiment.compile_train_step(state))
    batch = put_batch(benchmarks.random_batch(experiment), experiment.mesh)
    held = largest_share(state)
    states = [step(state, batch)[0]]
    del state

    def run() -> float:
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            states.append(step(states.pop(), batch)[0])
        jax.block_until_ready(states)
        return _STEPS.value * experiment.batch_size / (time.perf_counter() - start)

    return run, held, train_step_work(experiment)


def estimated_rates(works: dict[str, Work]) -> dict[str, float]:
    """Returns the images/s that `config.job=estimate` predicts for this CPU, measured now."""
    whole, part = measure_cpu(1), measure_cpu(DEVICES)
    return {
        strategy: _BATCH.value
        / estimate(work, whole if strategy == "single" else part, "float32")["step"]
        for strategy, work in works.items()
    }


def ratio(some: list[float], others: list[float]) -> float:
    """Returns the median of the rounds' ratios."""
    return round(statistics.median(a / b for a, b in zip(some, others, strict=True)), 3)


def main(_: list[str]) -> None:
    """Measures all strategies, interleaved, and prints the ratios."""
    devices.set_up(cpu_devices=DEVICES, use_cache=True)
    runs, held, works = {}, {}, {}
    for strategy in STRATEGIES:
        runs[strategy], held[strategy], works[strategy] = prepare(strategy)
        gc.collect()
    rates: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
    estimated: dict[str, list[float]] = {strategy: [] for strategy in STRATEGIES}
    for number in range(_ROUNDS.value):
        for strategy, run in runs.items():
            rates[strategy].append(run())
        for strategy, estimated_rate in estimated_rates(works).items():
            estimated[strategy].append(estimated_rate)
        for name, now in (("images/s", rates), ("estimated", estimated)):
            rates_now = ", ".join(f"{strategy} {rate[-1]:.1f}" for strategy, rate in now.items())
            print(f"round {number + 1}, {name}: {rates_now}", flush=True)
    result = {
        f"{strategy}_ratio": ratio(rate, rates["single"])
        for strategy, rate in rates.items()
        if strategy != "single"
    }
    for strategy in STRATEGIES:
        result[f"{strategy}_over_estimate"] = ratio(rates[strategy], estimated[strategy])
        result[f"{strategy}_images_per_second"] = round(statistics.median(rates[strategy]), 2)
    result["tower_memory_ratio"] = round(held["tower"] / held["single"], 4)
    print(json.dumps(result))


if __name__ == "__main__":
    benchmarks.run(main)
