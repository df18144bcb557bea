"""Trains the paper's model as its text describes it and as its authors coded it; compares the two.

    python -m benchmarks.text_against_code --root=DIR [--seeds=3] [--steps=300] [--workdir=DIR]

The root is a folder of images with train/ and val/, such as Tiny-ImageNet. Both models train with
the same optimizer, at a constant rate of 0.01 with batches of 32. Each is an ordinary run below the
workdir, so the command can be stopped and repeated. The curves are written as a figure and as JSON.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure
from rich.console import Console

import benchmarks
from alexnet_jax.jobs import train
from alexnet_jax.plots import style
from alexnet_jax.runtime import devices
from alexnet_jax.runtime.workdir import Workdir

_ROOT = flags.DEFINE_string("root", None, "Folder with train/ and val/.", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each model.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 300, "Steps of each run.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/text_against_code", "Folder of runs and results.")

MODELS = {"paper": "as coded", "paper_text": "the text"}

# {"train": [[step, training loss]], "val": [[step, validation loss, top-1]]} of a run
Curves = dict[str, list[list[float]]]


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


def run(model: str, seed: int) -> Curves:
    """Trains one model, or resumes its run, and returns its curves."""
    command = benchmarks.parse(arguments(model, seed))
    train.run(command, Console())
    lines = Workdir(command.workdir).read_metrics()
    columns = {"train": ("step", "loss"), "val": ("step", "loss", "top1")}
    return {
        split: [[line[name] for name in names] for line in lines if line["split"] == split]
        for split, names in columns.items()
    }


@style.styled
def compare_runs(runs: Mapping[str, list[Curves]], num_classes: int) -> Figure:
    """Draws training loss and validation top-1 of runs against their steps.

    Args:
      runs: for each label the curves of its seeds, all at the same steps. Their mean is a line;
        a band reaches from the smallest to the largest.
      num_classes: a dotted line marks chance, ln(classes) and 1 / classes.

    Returns:
      A figure of two panels, left to right: training loss, validation top-1 in percent.
    """
    figure = Figure(figsize=(9.0, 3.6))
    left, right = figure.subplots(1, 2)
    for axes, split, title, factor, chance in (
        (left, "train", "Training loss", 1.0, math.log(num_classes)),
        (right, "val", "Validation top-1 (%)", 100.0, 100.0 / num_classes),
    ):
        for label, seeds in runs.items():
            curves = np.array([seed[split] for seed in seeds])
            steps, values = curves[0, :, 0], factor * curves[:, :, -1]
            (line,) = axes.plot(steps, values.mean(axis=0), label=label)
            band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
            axes.fill_between(steps, values.min(axis=0), values.max(axis=0), **band)
        axes.axhline(chance, color="black", linestyle=":", linewidth=0.9, label="chance")
        axes.set(title=title, xlabel="step")
        axes.legend()
    return figure


def main(argv: list[str]) -> None:
    """Runs every seed of both models, draws and writes the results."""
    del argv
    devices.set_up(cpu_devices=None, use_cache=True)
    runs: dict[str, list[Curves]] = {label: [] for label in MODELS.values()}
    for seed in range(_SEEDS.value):
        for model, label in MODELS.items():
            runs[label].append(run(model, seed))
    out = Path(_WORKDIR.value)
    num_classes = len(list((Path(_ROOT.value) / "train").iterdir()))
    style.save(compare_runs(runs, num_classes), out / "text_against_code.png")
    (out / "text_against_code.json").write_text(json.dumps(runs) + "\n")
    print(json.dumps({label: [seed["val"][-1] for seed in seeds] for label, seeds in runs.items()}))


if __name__ == "__main__":
    benchmarks.run(main)
