"""Measures of predictions: standard errors, classes, confusion, calibration, comparison."""

from typing import Any, NamedTuple

import numpy as np

from alexnet_jax.evaluation.predictions import Predictions


class Calibration(NamedTuple):
    """Predictions in bins of equal width by the probability of the most probable class.

    Attributes:
      examples: int[bins], number in each bin; a bin includes its upper edge.
      confidence: float[bins], mean probability of the most probable class; 0 where empty.
      accuracy: float[bins], share of those classes that are correct; 0 where empty.
    """

    examples: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean distance of accuracy and confidence, by examples."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.average(gaps, weights=self.examples))


def standard_error(share: Any, count: Any) -> Any:
    """Returns the binomial standard error of a share (0..1) of `count` examples, or of several."""
    return np.sqrt(share * (1.0 - share) / count)


def confusion(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Returns int64[classes, classes]: examples of each class (row) by predicted class."""
    cells = predictions.labels.astype(np.int64) * num_classes + predictions.classes[:, 0]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def top5_counts(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Returns int64[classes]: examples of each class that have it in their top five."""
    return np.bincount(predictions.labels[predictions.in_top5], minlength=num_classes)


def calibration(predictions: Predictions, bins: int = 15) -> Calibration:
    """Compares how confident the model was with how often it was correct."""
    confidence = predictions.confidence.astype(np.float64)
    bin_index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    count = np.bincount(bin_index, minlength=bins)
    sums = (np.bincount(bin_index, x, minlength=bins) for x in (confidence, predictions.correct))
    return Calibration(count, *(total / np.maximum(count, 1) for total in sums))


def worst_mistakes(predictions: Predictions, most: int) -> np.ndarray:
    """Returns rows of wrong predictions, at most `most`, most confident first."""
    wrong = np.flatnonzero(~predictions.correct)
    order = np.argsort(-predictions.confidence[wrong], kind="stable")
    return wrong[order[:most]]


def paired_difference(correct: np.ndarray, other: np.ndarray) -> dict[str, float | int]:
    """Compares two ways of classifying the same examples.

    Args:
      correct: bool[n], which examples the first classifies correctly.
      other: bool[n], which examples the second classifies correctly.

    Returns:
      `difference`: the accuracy of the first minus that of the second; `gained` and `lost`: numbers
      of examples that only the first, or only the second, classifies correctly; `standard_error` of
      the difference, from these pairs only as in McNemar's test:
      sqrt(gained + lost - (gained - lost)^2 / n) / n.
    """
    differences = correct.astype(np.int64) - other
    return {
        "difference": float(differences.mean()),
        "standard_error": float(differences.std() / np.sqrt(len(differences))),
        "gained": int(np.sum(differences > 0)),
        "lost": int(np.sum(differences < 0)),
    }
