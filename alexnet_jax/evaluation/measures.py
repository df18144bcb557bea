"""What predictions come to: errors of the measures, classes, confusion, calibration, comparison."""

import math
from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.evaluation.predictions import Predictions

BINS = 15


class Classes(NamedTuple):
    """Measures of each class, by class index.

    Attributes:
      examples: int (classes,), how many.
      top1, top5: int (classes,), those whose correct class is the first, among the first five.
    """

    examples: np.ndarray
    top1: np.ndarray
    top5: np.ndarray


class Calibration(NamedTuple):
    """Predictions in bins of equal width by the probability of the most probable class.

    Attributes:
      examples: int (bins,), how many; the bins divide 0..1, each with its upper bound.
      confidence: float (bins,), mean probability of the most probable class; 0 where empty.
      accuracy: float (bins,), share of those classes that are correct; 0 where empty.
    """

    examples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean distance of accuracy and confidence, by examples."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(gaps * self.examples) / np.sum(self.examples))


def standard_error(share: float, count: int) -> float:
    """Returns the binomial standard error of a share (0..1) of `count` examples."""
    return math.sqrt(share * (1.0 - share) / count)


def by_class(predictions: Predictions, num_classes: int) -> Classes:
    """Counts examples and right answers of each class."""
    labels, ranks = predictions.labels, predictions.ranks

    def count(rows: Any) -> np.ndarray:
        return np.bincount(labels[rows], minlength=num_classes)

    return Classes(
        count(slice(None)), count(ranks < 1), count(ranks < predictions.classes.shape[1])
    )


def confusion(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Returns int64 (classes, classes): how many of each class (row) were taken for each."""
    places = predictions.labels.astype(np.int64) * num_classes + predictions.classes[:, 0]
    return np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)


def calibration(predictions: Predictions, bins: int = BINS) -> Calibration:
    """Compares how sure the net was with how often it was right."""
    sure = predictions.probabilities[:, 0].astype(np.float64)
    places = np.clip(np.ceil(sure * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(places, minlength=bins)
    divisor = np.maximum(count, 1)
    return Calibration(
        count,
        np.bincount(places, sure, minlength=bins) / divisor,
        np.bincount(places, predictions.right, minlength=bins) / divisor,
    )


def worst_mistakes(predictions: Predictions, most: int) -> np.ndarray:
    """Returns rows of wrong predictions, at most `most`, the most confident first."""
    wrong = np.flatnonzero(~predictions.right)
    order = np.argsort(-predictions.probabilities[wrong, 0], kind="stable")
    return wrong[order[:most]]


def paired_difference(right: np.ndarray, other: np.ndarray) -> dict[str, float | int]:
    """Compares two ways of answering the same questions.

    Args:
      right: bool (n,), which answers of the one way are right.
      other: bool (n,), of the other.

    Returns:
      `difference`: the share right in the one less that in the other; `gained` and `lost`:
      examples right in the one way only, in the other only; `standard_error` of the difference,
      from these pairs alone as in McNemar's test: sqrt(gained + lost - (gained - lost)^2 / n) / n.
    """
    count, gained, lost = len(right), int(np.sum(right & ~other)), int(np.sum(other & ~right))
    variance = gained + lost - (gained - lost) ** 2 / count
    return {
        "difference": (gained - lost) / count,
        "standard_error": math.sqrt(variance) / count,
        "gained": gained,
        "lost": lost,
    }
