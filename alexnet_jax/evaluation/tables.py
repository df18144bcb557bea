"""The CSV files of an evaluation."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.evaluation.measures import standard_error
from alexnet_jax.evaluation.predictions import Predictions

_ENCODING: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may hold any bytes


def write_classes(
    path: Path, confusion: np.ndarray, top5: np.ndarray, class_names: Sequence[str]
) -> None:
    """Writes a line for each class: counts, shares and its most frequent wrong prediction.

    Args:
      path: the file.
      confusion: int[classes, classes], see `measures.confusion`.
      top5: int[classes], see `measures.top5_counts`.
      class_names: the name of each class.
    """
    names = np.array(class_names, object)
    count, correct = confusion.sum(axis=1), np.diag(confusion)
    wrong = confusion - np.diag(correct)
    some = np.maximum(count, 1)
    top1 = correct / some

    def share(values: np.ndarray) -> np.ndarray:
        return np.where(count > 0, [f"{value:.4f}" for value in values], "")

    columns = {
        "label": range(len(names)),
        "class": names,
        "count": count,
        "top1": share(top1),
        "top1_standard_error": share(standard_error(top1, some)),
        "top5": share(top5 / some),
        "most_often_taken_for": np.where(wrong.any(axis=1), names[wrong.argmax(axis=1)], ""),
        "times": wrong.max(axis=1),
    }
    _write(path, columns)


def write_confusion(path: Path, confusion: np.ndarray, class_names: Sequence[str]) -> None:
    """Writes the counts, a line for each correct class, a column for each predicted one."""
    predicted = dict(zip(class_names, confusion.T, strict=True))
    _write(path, {"correct \\ predicted": class_names, **predicted})


def write_predictions(
    path: Path, predictions: Predictions, names: Iterable[str], class_names: Sequence[str]
) -> None:
    """Writes a line for each example: its class, the rank of it, and the most probable classes.

    Args:
      path: the file.
      predictions: of the whole split.
      names: the name of each example, such as its path.
      class_names: the name of each class.
    """
    known = np.array(class_names, object)
    columns = {
        "index": predictions.example_index,
        "example": names,
        "label": predictions.labels,
        "class": known[predictions.labels],
        "rank": predictions.ranks + 1,
        "probability": map("{:.6g}".format, np.exp(predictions.log_probabilities)),
    }
    for rank in range(predictions.classes.shape[1]):
        columns[f"class_{rank + 1}"] = known[predictions.classes[:, rank]]
        columns[f"p_{rank + 1}"] = map("{:.6g}".format, predictions.probabilities[:, rank])
    _write(path, columns)


def read_ranks(path: Path) -> dict[int, int]:
    """Returns {index: 1-based rank of the correct class} of a file of `write_predictions`."""
    with path.open(newline="", **_ENCODING) as file:
        return {int(row["index"]): int(row["rank"]) for row in csv.DictReader(file)}


def _write(path: Path, columns: Mapping[str, Iterable[Any]]) -> None:
    with path.open("w", newline="", **_ENCODING) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
