"""Trains the paper's model as its text describes it and as its authors coded it; compares the two.

    python -m benchmarks.text_against_code --root=DIR [--seeds=3] [--steps=300] [--workdir=DIR]

The root is a folder of images with train/ and val/, such as Tiny-ImageNet. Both models train with
the same optimizer, at a constant rate of 0.01 with batches of 32. Each is an ordinary run below the
workdir, so the command can be stopped and repeated. The curves are written as a figure and as JSON.
"""

import json
from pathlib import Path

from absl import flags
from rich.console import Console

import benchmarks
from alexnet_jax.config import command_line
from alexnet_jax.jobs import train
from alexnet_jax.plots import style
from alexnet_jax.plots.learning_curves import Lines, compare_runs
from alexnet_jax.runtime import devices
from alexnet_jax.runtime.workdir import Workdir

_ROOT = flags.DEFINE_string("root", None, "Folder with train/ and val/.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of each run.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/text_against_code", "Folder of runs and results.")

MODELS = {"paper": "as coded", "paper_text": "the text"}


def arguments(model: str, seed: int) -> list[str]:
    """Returns the command line of one run."""
    return [
        "--config=configs/tiny_imagenet.py",
        f"--config.data.root={_ROOT.value}",
        "--config.parallel.strategy=single",
        f"--config.model.name={model}",
        f"--config.seed={seed}",
        f"--config.train.duration={_STEPS.value} steps",
        "--config.train.log_every=10 steps",
        "--config.train.evaluate_every=100 steps",
        "--config.checkpoint.every=100 steps",
        "--config.optimizer.rates.weights.schedule=constant",
        "--config.optimizer.rates.biases.schedule=constant",
        f"--workdir={_WORKDIR.value}/{model}-{seed}",
    ]


def run(model: str, seed: int) -> Lines:
    """Trains one model, or resumes its run, and returns its metrics."""
    command = command_line.parse_valid(arguments(model, seed))
    train.run(command, Console())
    return Workdir(command.workdir).read_metrics()


def curves_of(lines: Lines) -> dict[str, list[list[float]]]:
    """Returns [step, training loss] and [step, validation loss, top-1] of a run."""
    return {
        "train": [[line["step"], line["loss"]] for line in lines if line["split"] == "train"],
        "val": [
            [line["step"], line["loss"], line["top1"]] for line in lines if line["split"] == "val"
        ],
    }


def main(argv: list[str]) -> None:
    """Runs every seed of both models, draws and writes the results."""
    del argv
    devices.set_up(cpu_devices=None, use_cache=True)
    runs: dict[str, list[Lines]] = {label: [] for label in MODELS.values()}
    for seed in range(_SEEDS.value):
        for model, label in MODELS.items():
            runs[label].append(run(model, seed))
    out = Path(_WORKDIR.value)
    num_classes = len(list((Path(_ROOT.value) / "train").iterdir()))
    style.save(compare_runs(runs, num_classes), out / "text_against_code.png")
    result = {label: [curves_of(lines) for lines in seeds] for label, seeds in runs.items()}
    (out / "text_against_code.json").write_text(json.dumps(result) + "\n")
    print(
        json.dumps({label: [seed["val"][-1] for seed in seeds] for label, seeds in result.items()})
    )


if __name__ == "__main__":
    benchmarks.run(main)
