"""The CSV files of an evaluation."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.evaluation.measures import Classes, standard_error
from alexnet_jax.evaluation.predictions import Predictions

_ENCODING: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names are any bytes
_PREDICTIONS = ("index", "example", "label", "class", "rank", "probability")


def write_classes(
    path: Path, classes: Classes, confusion: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes a line for each class: counts, shares and what it is most often taken for.

    Args:
      path: the file.
      classes: of `by_class`.
      confusion: int (classes, classes), of `confusion`.
      class_names: the name of each class.
    """
    header = ["label", "class", "count", "top1", "top1_standard_error", "top5"]
    rows = []
    for label, (count, first, five) in enumerate(zip(*classes, strict=True)):
        shares: list[Any] = ["", "", ""]  # of a class without an example there is nothing to say
        if count:
            share = first / count
            shares = [f"{share:.4f}", f"{standard_error(share, count):.4f}", f"{five / count:.4f}"]
        taken_for = confusion[label].copy()
        taken_for[label] = 0
        most = int(np.argmax(taken_for))
        mistaken = [class_names[most], taken_for[most]] if taken_for[most] else ["", 0]
        rows.append([label, class_names[label], count, *shares, *mistaken])
    _write(path, [*header, "most_often_taken_for", "times"], rows)


def write_confusion(path: Path, confusion: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes the counts, a line for each correct class, a column for each predicted one."""
    rows = ([name, *row] for name, row in zip(class_names, confusion.tolist(), strict=True))
    _write(path, ["correct \\ predicted", *class_names], rows)


def write_predictions(
    path: Path, predictions: Predictions, names: Iterable[str], class_names: Sequence[str]
) -> None:
    """Writes a line for each example: what it is, where the correct class came, and the best.

    Args:
      path: the file.
      predictions: of the whole split.
      names: what to call each example, such as its path.
      class_names: the name of each class.
    """
    most = range(1, predictions.classes.shape[1] + 1)
    header = [*_PREDICTIONS, *(f"{what}_{place}" for place in most for what in ("class", "p"))]
    columns = (
        predictions.indices,
        names,
        predictions.labels,
        predictions.ranks + 1,
        np.exp(predictions.log_probabilities),
        predictions.classes,
        predictions.probabilities,
    )
    rows = (
        [
            *(index, name, label, class_names[label], rank, f"{own:.6g}"),
            *(
                cell
                for best, chance in zip(classes, chances, strict=True)
                for cell in (class_names[best], f"{chance:.6g}")
            ),
        ]
        for index, name, label, rank, own, classes, chances in zip(*columns, strict=True)
    )
    _write(path, header, rows)


def read_ranks(path: Path) -> dict[int, int]:
    """Returns {index: 1-based rank of the correct class} of a file of `write_predictions`."""
    with path.open(newline="", **_ENCODING) as file:
        return {int(row["index"]): int(row["rank"]) for row in csv.DictReader(file)}


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", **_ENCODING) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
