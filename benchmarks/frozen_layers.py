"""Training speed of the paper's model with its convolutions frozen, relative to all trained.

    python -m benchmarks.frozen_layers [--batch_size=32] [--steps=2] [--rounds=5]

Both steps are compiled and run once; then they take turns, round after round, on one batch that is
already on the device. Ratios are medians over the rounds.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

import benchmarks
from alexnet_jax.experiment import Experiment
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.runtime import devices

_BATCH = flags.DEFINE_integer("batch_size", 32, "Images per step.")
_STEPS = flags.DEFINE_integer("steps", 2, "Steps timed together.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Turns of each step.", lower_bound=1)

CONFIGS = {"all": "configs/finetune.py", "frozen": "configs/finetune.py:frozen"}


def prepare(config: str) -> tuple[Callable[[], float], dict[str, float]]:
    """Returns a function that times steps (images/s), and what the compiler counts of one."""
    options = ("parallel.strategy=single", f"train.batch_size={_BATCH.value}")
    command = benchmarks.parse([f"--config={config}", *(f"--config.{x}" for x in options)])
    experiment = Experiment.from_config(command.config, num_classes=1000, num_examples=10_000)
    zeros = {name: np.zeros(shape, np.float32) for name, shape in experiment.statistics.items()}
    state = experiment.initial_state(zeros)
    compiled = experiment.compile_train_step(state)
    costs: Any = compiled.cost_analysis()
    counted = {
        "gigaflops": round(costs["flops"] / 1e9, 1),
        "velocity_megabytes": round(sum(x.nbytes for x in jax.tree.leaves(state.opt_state)) / 1e6),
    }
    step, batch = (
        one_at_a_time(compiled),
        put_batch(benchmarks.random_batch(experiment), experiment.mesh),
    )
    states = [step(state, batch)[0]]

    def run() -> float:
        start = time.perf_counter()
        for _ in range(_STEPS.value):
            states.append(step(states.pop(), batch)[0])
        jax.block_until_ready(states)
        return _STEPS.value * experiment.batch_size / (time.perf_counter() - start)

    return run, counted


def main(argv: list[str]) -> None:
    """Measures both, interleaved, and prints speeds, their ratio and what was counted."""
    del argv
    devices.set_up(cpu_devices=1, use_cache=True)
    prepared = {name: prepare(config) for name, config in CONFIGS.items()}
    rates: dict[str, list[float]] = {name: [] for name in prepared}
    for number in range(_ROUNDS.value):
        for name, (run, _) in prepared.items():
            rates[name].append(run())
        now = ", ".join(f"{name} {rate[-1]:.1f}" for name, rate in rates.items())
        print(f"round {number + 1}, images/s: {now}", flush=True)
    ratios = [frozen / full for full, frozen in zip(*rates.values(), strict=True)]
    result: dict[str, Any] = {"frozen_ratio": round(statistics.median(ratios), 2)}
    for name, (_, counted) in prepared.items():
        result[f"{name}_images_per_second"] = round(statistics.median(rates[name]), 1)
        result |= {f"{name}_{key}": value for key, value in counted.items()}
    print(json.dumps(result))


if __name__ == "__main__":
    benchmarks.run(main)
