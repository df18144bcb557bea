"""The figures of a training run, and the table of its results."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.data.source import Source
from alexnet_jax.experiment import Experiment
from alexnet_jax.runtime.workdir import Line, Workdir
from alexnet_jax.trained_model import TrainedModel
from alexnet_jax.training.state import TrainState

IMAGES_ON_A_PAGE = 20
IMAGES_OF_A_BATCH = 40  # the 32 that share a crop in the authors' code, and some of the next
CANDIDATES, CANDIDATES_AT_A_TIME = 500, 100  # held-out images of which the hardest are drawn
_COLUMNS = {
    "step": "{step}",
    "epoch": "{epoch:.1f}",
    "loss": "{loss:.4f}",
    "top-1": "{top1:.2%}",
    "top-5": "{top5:.2%}",
    "examples": "{count:,}",
    "images/s": "{images_per_second:,.0f}",
}
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def _run_goes_on() -> Iterator[None]:
    """Logs why a figure cannot be drawn, so that the run goes on; a full disk remains an error."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        _log.warning(
            "A figure could not be drawn (%s: %s); the run is not affected. Running the same "
            "command again draws the figures of a finished run.",
            *(type(error).__name__, error),
        )


@_run_goes_on()
def draw_first_batch(
    workdir: Workdir, experiment: Experiment, state: TrainState, batch: Batch, train: Source
) -> None:
    """Draws the first rows of a run's first batch as first_batch.png, as the model sees them."""
    from alexnet_jax.plots import pages, style

    rows = Batch(*(array[:IMAGES_OF_A_BATCH] for array in batch))
    labels = np.array(train.classes.labels, object)[rows.labels]
    page = pages.image_grid(
        experiment.training_images(state, rows),
        np.where(rows.mask > 0, labels, "unreadable").tolist(),
        title="The first training batch, augmented, with the mean added back",
        columns=8,
    )
    style.save(page, workdir.path / "first_batch.png", workdir.path.resolve().name)


@_run_goes_on()
def draw(workdir: Workdir, trained: TrainedModel, held_out: Source) -> None:
    """Draws the figures of a finished run into its workdir."""
    # matplotlib is slow to import
    from alexnet_jax.plots import style, training

    lines = workdir.read_metrics()
    first_kernel = next(iter(trained.params.values()))["kernel"]
    figures = {
        "learning_curves": training.learning_curves(lines, len(trained.class_names)),
        "kernels": training.kernels(np.asarray(first_kernel), trained.model.spec.towers),
    }
    if (page := prediction_page(trained, held_out)) is not None:
        figures["predictions"] = page
    footer = f"{workdir.path.resolve().name}, step {trained.step:,}"
    for name, figure in figures.items():
        style.save(figure, workdir.path / f"{name}.png", footer)


def print_results(workdir: Workdir, console: Console) -> None:
    """Prints the last training line, the last and the best evaluation, and the figures' names."""
    rows = {f"{split}, last": line for split, line in sorted(workdir.last.items())}
    console.print(_table("Results", rows | {"val, best": workdir.best}))
    figures = sorted(path.name for path in workdir.path.iterdir() if path.suffix == ".png")
    console.print(f"{workdir.path}: {', '.join(figures)}")


def print_comparison(fine_tuned: Workdir, scratch: Workdir, console: Console) -> None:
    """Prints the evaluations of a run that started from a model and of the same from scratch."""
    runs = {"tuned": fine_tuned, "scratch": scratch}
    rows = {f"{name}, last": run.last.get("val") for name, run in runs.items()}
    rows |= {f"{name}, best": run.best for name, run in runs.items()}
    console.print(_table("Fine-tuned and from scratch", rows))
    last = [run.last["val"] for run in runs.values()]
    top1 = [line["top1"] for line in last]
    error = sum(line["top1"] * (1 - line["top1"]) / line["count"] for line in last) ** 0.5
    console.print(
        f"Fine-tuning changes top-1 by {100 * (top1[0] - top1[1]):+.1f} points at the last "
        f"evaluation (binomial standard error {100 * error:.1f})."
    )


def _table(title: str, rows: Mapping[str, Line | None]) -> Table:
    """Returns a table of lines of metrics by name; None is left out."""
    columns = (Column(heading, justify="right") for heading in _COLUMNS)
    # As narrow as it gets: a console of 80 columns shows every name on one line.
    table = Table(
        "", *columns, title=title, title_justify="left", collapse_padding=True, pad_edge=False
    )
    for name, line in rows.items():
        if line:
            table.add_row(name, *(text.format(**line) for text in _COLUMNS.values()))
    return table


def prediction_page(trained: TrainedModel, held_out: Source) -> Any:
    """Draws held-out images: some evenly spread, then those whose label is the least probable.

    Returns:
      The figure; None where no image can be read.
    """
    from alexnet_jax.plots import pages

    images, labels, readable = held_out.load(spread(len(held_out), CANDIDATES))
    parts = np.array_split(images, -(-len(images) // CANDIDATES_AT_A_TIME))
    probabilities = np.concatenate([trained.probabilities(part) for part in parts])
    usable = np.flatnonzero(readable)
    if not len(usable):
        return None
    hardest = usable[np.argsort(probabilities[usable, labels[usable]], kind="stable")]
    hardest = hardest[: min(IMAGES_ON_A_PAGE, len(usable)) // 2]
    others = np.setdiff1d(usable, hardest)
    others = others[spread(len(others), IMAGES_ON_A_PAGE - len(hardest))]
    rows = np.concatenate([others, hardest])
    chosen = f"{len(usable):,}"
    if len(images) < len(held_out):
        chosen += f" spread over all {len(held_out):,}"
    return pages.prediction_page(
        images[rows],
        labels[rows],
        probabilities[rows],
        trained.class_labels,
        title=f"Held-out images: {len(others)} evenly spread, then the {len(hardest)} hardest "
        f"of {chosen}",
    )


def spread(count: int, wanted: int) -> np.ndarray:
    """Returns `wanted` indices, or all, spread evenly over 0..count-1."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)
