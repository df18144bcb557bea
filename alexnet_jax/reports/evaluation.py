"""The report of an evaluation: numbers as JSON and CSV, pictures, and a table on the console."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from alexnet_jax.data.source import Source
from alexnet_jax.evaluation import measures, tables
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.runtime.workdir import Workdir

MISTAKES_ON_A_PAGE = 20


def write(
    workdir: Workdir,
    about: dict[str, Any],
    predictions: Predictions,
    source: Source,
    console: Console,
) -> None:
    """Writes `evaluation/SPLIT_VIEWS/` and evaluation.json, that of the last; prints the results.

    Args:
      workdir: of the run.
      about: what was evaluated: checkpoint, split, views and whatever else stands in the JSON.
      predictions: of the whole split.
      source: the split.
      console: where the results are printed.
    """
    folder = folder_of(workdir, about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "evaluation.json").unlink(missing_ok=True)  # it vouches for the files beside it
    names = (source.describe(int(index)) for index in predictions.indices)
    tables.write_predictions(folder / "predictions.csv", predictions, names, source.class_names)
    calibration = measures.calibration(predictions)
    result = {
        **about,
        **_with_errors(predictions.means()),
        "expected_calibration_error": calibration.expected_error,
        "calibration": [
            {"count": int(count), "confidence": float(sure), "accuracy": float(right)}
            for count, sure, right in zip(*calibration, strict=True)
        ],
        "against": _against_others(workdir, about, predictions),
    }
    _describe_classes(folder, predictions, source)
    _draw(folder, predictions, source, calibration)
    text = json.dumps(result, indent=2) + "\n"
    for path in (folder / "evaluation.json", workdir.path / "evaluation.json"):
        write_atomically(path, text)
    console.print(_table(workdir, result))
    for other, found in result["against"].items():
        console.print(
            f"top-1 against {other}: {100 * found['difference']:+.2f} points, standard error "
            f"{100 * found['standard_error']:.2f} ({found['gained']} gained, {found['lost']} lost)"
        )
    console.print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def folder_of(workdir: Workdir, about: dict[str, Any]) -> Path:
    """Returns where a report lies: on 'val[:90%]' by ten crops in 'val_-90%_ten_crops'."""
    split = re.sub(r"[^\w%-]+", "_", about["split"].replace(":", "-")).strip("_")
    return workdir.path / "evaluation" / f"{split}_{_views_of(about).replace(' ', '_')}"


def _views_of(about: dict[str, Any]) -> str:
    """Names the views, and the sides in pixels of a dense evaluation."""
    return " ".join([about["views"], *map(str, about.get("scales", ()))])


def _with_errors(means: dict[str, float | int]) -> dict[str, float | int]:
    """Adds the binomial standard errors of top1 and top5."""
    errors = {
        f"{name}_standard_error": measures.standard_error(means[name], int(means["count"]))
        for name in ("top1", "top5")
    }
    return {**means, **errors}


def _against_others(
    workdir: Workdir, about: dict[str, Any], predictions: Predictions
) -> dict[str, Any]:
    """Compares top-1 with that of other views of the same pictures by the same checkpoint."""
    found = {}
    own = folder_of(workdir, about)
    for path in sorted(own.parent.glob("*/evaluation.json")):
        other = json.loads(path.read_text())
        same = (other["checkpoint"], other["split"]) == (about["checkpoint"], about["split"])
        if path.parent == own or not same:
            continue
        ranks = tables.read_ranks(path.parent / "predictions.csv")
        if list(ranks) == predictions.indices.tolist():
            right = np.array(list(ranks.values())) == 1
            found[_views_of(other)] = measures.paired_difference(predictions.right, right)
    return found


def _describe_classes(folder: Path, predictions: Predictions, source: Source) -> None:
    """Writes accuracy by class and the confusion matrix, as CSV and as pictures."""
    from alexnet_jax.plots import class_accuracy, confusion, style  # matplotlib is slow to import

    names, words = source.class_names, source.class_labels
    by_class = measures.by_class(predictions, len(names))
    matrix = measures.confusion(predictions, len(names))
    tables.write_classes(folder / "classes.csv", by_class, matrix, names)
    tables.write_confusion(folder / "confusion.csv", matrix, names)
    style.save(
        class_accuracy.class_accuracies(by_class.top1, by_class.examples, words),
        folder / "classes.png",
    )
    style.save(confusion.confusion_matrix(matrix, words), folder / "confusion.png")


def _draw(
    folder: Path, predictions: Predictions, source: Source, calibration: measures.Calibration
) -> None:
    """Draws the reliability diagram and, if there are any, the worst mistakes."""
    from alexnet_jax.plots import style
    from alexnet_jax.plots.calibration import reliability_diagram
    from alexnet_jax.plots.pages import Bar, image_grid

    diagram = reliability_diagram(*calibration, calibration.expected_error)
    style.save(diagram, folder / "calibration.png")
    page = folder / "worst_mistakes.png"
    page.unlink(missing_ok=True)
    rows = measures.worst_mistakes(predictions, MISTAKES_ON_A_PAGE)
    if not len(rows):
        return
    indices, words = predictions.indices[rows].astype(np.int64), source.class_labels
    taken_for, sure = predictions.classes[rows, 0], predictions.probabilities[rows, 0]
    own = np.exp(predictions.log_probabilities[rows])
    figure = image_grid(
        source.load(indices).images,
        [os.path.basename(source.describe(int(index))) for index in indices],
        [
            (Bar(words[first], p), Bar(words[label], q, correct=True))
            for first, p, label, q in zip(
                taken_for, sure, predictions.labels[rows], own, strict=True
            )
        ],
        title="Worst mistakes: the most confident wrong predictions",
    )
    style.save(figure, page)


def _table(workdir: Workdir, result: dict[str, Any]) -> Table:
    what = f"{result['split']}, {_views_of(result)}"
    title = f"{workdir.path}, step {result['checkpoint']}: {what}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_edge=False)
    for heading in ("examples", "loss", "top-1", "top-5", "ECE"):
        table.add_column(heading, justify="right")

    def share(name: str) -> str:
        return f"{result[name]:.2%} ± {100 * result[f'{name}_standard_error']:.2f}"

    table.add_row(
        f"{result['count']:,}",
        f"{result['loss']:.4f}",
        share("top1"),
        share("top5"),
        f"{result['expected_calibration_error']:.2%}",
    )
    return table
