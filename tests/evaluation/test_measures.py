"""Every measure against a loop that a reader can check."""

import math

import numpy as np
import pytest

from alexnet_jax.evaluation import measures
from alexnet_jax.evaluation.predictions import Predictions

CLASSES = 7


def predictions(count: int, seed: int = 0) -> tuple[Predictions, np.ndarray, np.ndarray]:
    """Returns them with the probabilities (n, classes) and labels they come from."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(CLASSES, 0.3), count)
    labels = rng.integers(0, CLASSES - 1, count)  # the last class has no example
    order = np.argsort(-chances, axis=1)
    own = chances[np.arange(count), labels]
    made = Predictions(
        mask=np.ones(count, bool),
        example_index=np.arange(count, dtype=np.uint32),
        labels=labels.astype(np.int32),
        ranks=(chances > own[:, None]).sum(axis=1),
        log_probabilities=np.log(own),
        classes=order[:, :5].astype(np.int32),
        probabilities=np.take_along_axis(chances, order[:, :5], axis=1),
    )
    return made, chances, labels


@pytest.mark.parametrize("count", [1, 13, 101])
def test_top5_counts(count: int) -> None:
    made, chances, labels = predictions(count)
    found = measures.top5_counts(made, CLASSES)
    for label in range(CLASSES):
        rows = [row for row in range(count) if labels[row] == label]
        five = [sorted(range(CLASSES), key=lambda c, r=row: -chances[r][c])[:5] for row in rows]
        assert found[label] == sum(label in best for best in five)
    assert found.sum() == round(count * made.means()["top5"])


@pytest.mark.parametrize("count", [1, 13, 101])
def test_confusion(count: int) -> None:
    made, chances, labels = predictions(count)
    expected = [[0] * CLASSES for _ in range(CLASSES)]
    for row in range(count):
        expected[labels[row]][int(np.argmax(chances[row]))] += 1
    found = measures.confusion(made, CLASSES)
    assert found.tolist() == expected
    assert np.trace(found) == round(count * made.means()["top1"])


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration(bins: int) -> None:
    made, chances, labels = predictions(201)
    found = measures.calibration(made, bins)
    error = 0.0
    for index in range(bins):
        rows = [
            row for row in range(201) if index / bins < chances[row].max() <= (index + 1) / bins
        ]
        assert found.examples[index] == len(rows)
        if not rows:
            assert found.confidence[index] == found.accuracy[index] == 0
            continue
        confident = sum(chances[row].max() for row in rows) / len(rows)
        correct = sum(chances[row].argmax() == labels[row] for row in rows) / len(rows)
        assert found.confidence[index] == pytest.approx(confident)
        assert found.accuracy[index] == pytest.approx(correct)
        error += len(rows) / 201 * abs(confident - correct)
    assert found.expected_error == pytest.approx(error)


def test_a_probability_of_one_and_more_by_rounding_is_in_the_last_bin() -> None:
    made, _, _ = predictions(2)
    certain = made.replace(probabilities=np.array([[1.0], [1.0000001]], np.float32))
    assert measures.calibration(certain, 4).examples.tolist() == [0, 0, 0, 2]


def test_worst_mistakes() -> None:
    made, chances, labels = predictions(50)
    wrong = [row for row in range(50) if chances[row].argmax() != labels[row]]
    wrong.sort(key=lambda row: -chances[row].max())
    assert len(wrong) > 20
    assert measures.worst_mistakes(made, 20).tolist() == wrong[:20]
    assert measures.worst_mistakes(made, 50).tolist() == wrong
    correct = made.replace(ranks=np.zeros(50, int))
    assert measures.worst_mistakes(correct, 20).tolist() == []


def test_standard_error_is_that_of_many_draws() -> None:
    draws = np.random.default_rng(0).binomial(400, 0.3, 20_000) / 400
    assert measures.standard_error(0.3, 400) == pytest.approx(draws.std(), rel=0.02)


def test_paired_difference() -> None:
    """Against the standard error of the mean of the pairs' differences."""
    rng = np.random.default_rng(1)
    one = rng.random(300) < 0.6
    other = np.where(rng.random(300) < 0.8, one, ~one)
    differences = [int(a) - int(b) for a, b in zip(one, other, strict=True)]
    mean = sum(differences) / 300
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 300 / 300)
    found = measures.paired_difference(one, other)
    assert found["difference"] == pytest.approx(mean)
    assert found["standard_error"] == pytest.approx(error)
    assert found["gained"] == differences.count(1)
    assert found["lost"] == differences.count(-1)
