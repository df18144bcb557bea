"""What a finished run shows: its pictures and a short table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.data.sources import Source
from alexnet_jax.experiment import Experiment
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import TrainedModel
from alexnet_jax.training.state import TrainState

PICTURES_ON_A_PAGE = 20
PICTURES_OF_A_BATCH = 40  # the 32 that share a crop in the authors' code, and some of the next


def draw_first_batch(
    workdir: Workdir, experiment: Experiment, state: TrainState, batch: Batch, train: Source
) -> None:
    """Draws the first rows of a run's first batch as first_batch.png, as the net is given them."""
    from alexnet_jax.plots import drawing, pages

    rows = Batch(*(array[:PICTURES_OF_A_BATCH] for array in batch))
    page = pages.picture_grid(
        experiment.training_pictures(state, rows),
        [
            train.class_labels[label] if weight else "unreadable"
            for label, weight in zip(rows.labels, rows.mask, strict=True)
        ],
        title="The first training batch, augmented; the mean is put back",
        columns=8,
    )
    drawing.save(page.figure, workdir.path / "first_batch.png")


def finish(workdir: Workdir, trained: TrainedModel, held_out: Source, console: Console) -> None:
    """Draws the run's pictures into its workdir and prints its results."""
    from alexnet_jax.plots import drawing, pages, training  # matplotlib is slow to import

    lines = workdir.read_metrics()
    first_kernel = next(iter(trained.params.values()))["kernel"]
    examples = held_out.read(spread(len(held_out), PICTURES_ON_A_PAGE))
    pictures = {
        "learning_curves.png": training.learning_curves(lines, len(trained.class_names)),
        "kernels.png": training.kernels(np.asarray(first_kernel), trained.model.spec.towers),
        "predictions.png": pages.prediction_page(
            examples.images,
            examples.labels,
            trained.probabilities(examples.images),
            trained.class_labels,
            title="Held-out pictures and their most probable classes",
            columns=5,
        ),
    }
    for name, figure in pictures.items():
        drawing.save(figure, workdir.path / name)
    console.print(results_table(lines))
    drawn = sorted(path.name for path in workdir.path.glob("*.png"))
    console.print(f"{workdir.path}: {', '.join(drawn)}")


def spread(count: int, wanted: int) -> np.ndarray:
    """Returns `wanted` indices, or all, spread evenly over 0..count-1."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)


def results_table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Returns the last training line, the last and the best evaluation as a table."""
    table = Table(title="Results", title_justify="left")
    for heading in ("", "step", "epoch", "loss", "top-1", "top-5", "examples", "images/s"):
        table.add_column(heading, justify="right" if heading else "left")
    train = [line for line in lines if line["split"] == "train"]
    val = [line for line in lines if line["split"] == "val"]
    rows = {
        "train, last": train[-1:],
        "val, last": val[-1:],
        "val, best": [max(val, key=lambda line: (line["top1"], line["step"]))] if val else [],
    }
    for name, found in rows.items():
        for line in found:
            table.add_row(
                name,
                f"{line['step']}",
                f"{line['epoch']:.1f}",
                f"{line['loss']:.4f}",
                f"{line['top1']:.2%}",
                f"{line['top5']:.2%}",
                f"{line['count']:,}",
                f"{line['images_per_second']:,.0f}",
            )
    return table
