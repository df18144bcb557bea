"""Curves of several runs: each line the mean of a few seeds, in a band from lowest to highest."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.errors import InputError
from alexnet_jax.plots import style
from alexnet_jax.plots.learning_curves import Lines


@style.styled
def compare_runs(runs: Mapping[str, Sequence[Lines]], num_classes: int) -> Figure:
    """Draws training loss and validation top-1 of runs against their steps.

    Args:
      runs: for each label its seeds, each the objects of a metrics.jsonl.
      num_classes: a dotted line marks chance, ln(classes) and 1 / classes.

    Returns:
      A figure of two panels, left to right: training loss, validation top-1 in percent.

    Raises:
      InputError: the seeds of a run have no lines of a split in common.
    """
    figure = Figure(figsize=(9.0, 3.6))
    panels = {
        ("train", "loss"): ("Training loss", 1.0, math.log(num_classes)),
        ("val", "top1"): ("Validation top-1 (%)", 100.0, 100.0 / num_classes),
    }
    for axes, ((split, key), (title, factor, chance)) in zip(
        figure.subplots(1, 2), panels.items(), strict=True
    ):
        for label, seeds in runs.items():
            steps, values = _common_steps(label, seeds, split, key)
            values = factor * values
            (line,) = axes.plot(steps, values.mean(axis=0), label=label)
            band = {"color": line.get_color(), "alpha": 0.2, "linewidth": 0}
            axes.fill_between(steps, values.min(axis=0), values.max(axis=0), **band)
        axes.axhline(chance, color="black", linestyle=":", linewidth=0.9, label="chance")
        axes.set(title=title, xlabel="step")
        axes.legend()
    return figure


def _common_steps(
    label: str, seeds: Sequence[Lines], split: str, key: str
) -> tuple[list[int], np.ndarray]:
    """Returns the steps that all seeds have, and float[seeds, steps] of a value there."""
    curves = [
        {line["step"]: line[key] for line in lines if line["split"] == split} for lines in seeds
    ]
    steps = sorted(set.intersection(*map(set, curves)))
    if not steps:
        raise InputError(f"The runs of {label} have no {split} lines in common.")
    return steps, np.array([[curve[step] for step in steps] for curve in curves])
