"""Curves of several runs side by side: each line the mean of a few seeds, in a band of them all."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alexnet_jax.errors import InputError
from alexnet_jax.plots.drawing import new_figure, styled

Lines = Sequence[Mapping[str, Any]]


@styled
def compare_runs(runs: Mapping[str, Sequence[Lines]], num_classes: int) -> Figure:
    """Draws training loss and validation top-1 of runs against their steps.

    Args:
      runs: for each label its seeds, each the objects of a metrics.jsonl.
      num_classes: a dotted line marks chance, ln(classes) and 1 / classes.

    Returns:
      A figure of two panels, left to right: training loss, validation top-1 in percent.

    Raises:
      InputError: there is no run, or one has no lines of a split.
    """
    if not runs:
        raise InputError("There are no runs to compare.")
    figure = new_figure(9.0, 3.6)
    figure.subplots_adjust(left=0.06, right=0.985, bottom=0.14, top=0.9, wspace=0.18)
    panels = figure.subplots(1, 2)
    chance = (math.log(num_classes), 100.0 / num_classes)
    for axes, split, key, factor, level in zip(
        panels, ("train", "val"), ("loss", "top1"), (1.0, 100.0), chance, strict=True
    ):
        for label, seeds in runs.items():
            steps, values = _course(label, seeds, split, key)
            values = factor * values
            (line,) = axes.plot(steps, values.mean(axis=0), label=label)
            axes.fill_between(
                steps,
                values.min(axis=0),
                values.max(axis=0),
                color=line.get_color(),
                alpha=0.2,
                linewidth=0,
            )
        axes.axhline(level, color="black", linestyle=":", linewidth=0.9, label="chance")
        axes.set_xlabel("step")
        axes.grid(True)
        axes.legend()
    panels[0].set_title("Training loss")
    panels[1].set_title("Validation top-1 (%)")
    return figure


def _course(
    label: str, seeds: Sequence[Lines], split: str, key: str
) -> tuple[list[int], np.ndarray]:
    """Returns the steps that all seeds have, and float[seeds, steps] of a value there."""
    courses = [
        {line["step"]: line[key] for line in lines if line["split"] == split} for lines in seeds
    ]
    steps = sorted(set.intersection(*map(set, courses))) if courses else []
    if not steps:
        raise InputError(f"The runs of {label} have no {split} lines in common.")
    return steps, np.array([[course[step] for step in steps] for course in courses])
