"""Fine-tunes a model on a folder of images and trains from scratch at the same budget, by seed.

    python -m benchmarks.fine_tuning --source=runs/source --root=DIR [--seeds=3]
        [--duration="1 epoch"] [--rate=0.001] [--workdir=runs/fine_tuning]

Each seed is a run of configs/finetune.py with its baseline, below the workdir, so the command can
be stopped and repeated. The figures are top-1 at the last evaluation; the standard error is that of
the mean difference, from the spread of the seeds.
"""

import json
import statistics
from pathlib import Path

from absl import flags
from rich.console import Console

import benchmarks
from alexnet_jax.config.fine_tuning import inherit
from alexnet_jax.errors import config_errors
from alexnet_jax.jobs import train
from alexnet_jax.runtime import devices
from alexnet_jax.runtime.workdir import Workdir

_SOURCE = flags.DEFINE_string("source", None, "Model to start from.", required=True)
_ROOT = flags.DEFINE_string("root", None, "Folder with train/ and val/.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each kind.", lower_bound=2)
_DURATION = flags.DEFINE_string("duration", "1 epoch", "Length of each run.")
_RATE = flags.DEFINE_float("rate", 0.001, "Of the hidden layers' weights; the head's is 10 times.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/fine_tuning", "Folder of the runs.")


def arguments(seed: int) -> list[str]:
    """Returns the command line of one run."""
    return [
        "--config=configs/finetune.py",
        f"--config.train.init_from={_SOURCE.value}",
        f"--config.data.root={_ROOT.value}",
        f"--config.train.duration={_DURATION.value}",
        f"--config.optimizer.rates.weights.rate={_RATE.value}",
        "--config.train.scratch_baseline=True",
        "--config.parallel.strategy=single",
        f"--config.seed={seed}",
        f"--workdir={_WORKDIR.value}/{seed}",
    ]


def run(seed: int) -> dict[str, float]:
    """Trains both, or resumes them, and returns their top-1."""
    command = inherit(benchmarks.parse(arguments(seed)))
    if command.errors:
        raise config_errors(command.errors)
    train.run(command, Console())
    folders = {"fine_tuned": command.workdir, "scratch": command.workdir / "scratch"}
    return {name: Workdir(Path(path)).last["val"]["top1"] for name, path in folders.items()}


def main(_: list[str]) -> None:
    """Runs every seed and prints the comparison."""
    devices.set_up(cpu_devices=None, use_cache=True)
    results = [run(seed) for seed in range(_SEEDS.value)]
    gains = [result["fine_tuned"] - result["scratch"] for result in results]
    summary = {
        **{name: [result[name] for result in results] for name in results[0]},
        "gain": statistics.mean(gains),
        "standard_error": statistics.stdev(gains) / len(gains) ** 0.5,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    benchmarks.run(main)
