"""Loss and accuracies against float64 numpy."""

import itertools
import operator

import jax
import numpy as np
import pytest

from alexnet_jax.training.metrics import Metrics, measure, rank_of_label

RNG = np.random.default_rng(0)
CLASSES = 12
NAN, INF = float("nan"), float("inf")

measure, rank_of_label = jax.jit(measure), jax.jit(rank_of_label)


def oracle(logits: np.ndarray, labels: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Means by sorting; of equal logits the lower class comes first."""
    logits = logits.astype(np.float64)
    chosen = mask > 0
    order = np.argsort(-logits, axis=1, kind="stable")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    losses = log_sums - shifted[np.arange(len(labels)), labels]
    return {
        "loss": losses[chosen].mean(),
        "top1": (order[:, :1] == labels[:, None]).any(axis=1)[chosen].mean(),
        "top5": (order[:, :5] == labels[:, None]).any(axis=1)[chosen].mean(),
        "count": int(chosen.sum()),
    }


def batch(size: int, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = RNG.normal(0, 3, (size, classes)).astype(np.float32)
    labels = RNG.integers(0, classes, size).astype(np.int32)
    return logits, labels, RNG.integers(0, 2, size).astype(np.float32)


@pytest.mark.parametrize("classes", [3, 5, CLASSES])
def test_means_are_those_of_sorting(classes: int) -> None:
    logits, labels, mask = batch(100, classes)
    assert measure(logits, labels, mask).means() == pytest.approx(
        oracle(logits, labels, mask), rel=1e-5
    )


def test_of_equal_logits_the_lower_class_comes_first() -> None:
    logits, labels, mask = batch(100)
    tied = logits.round() % 3  # three values over twelve classes
    means = measure(tied, labels, mask).means()
    assert means == pytest.approx(oracle(tied, labels, mask), rel=1e-5)
    flat = np.zeros((CLASSES, CLASSES), np.float32)
    np.testing.assert_array_equal(rank_of_label(flat, np.arange(CLASSES)), np.arange(CLASSES))


def test_rank_is_the_position_in_a_stable_sort() -> None:
    """For every way in which four logits can be ordered and tied, and every label."""
    rows = np.array(list(itertools.product(range(4), repeat=4)), np.float32)
    for label in range(4):
        ranks = [sorted(range(4), key=lambda i, row=row: -row[i]).index(label) for row in rows]
        found = rank_of_label(rows, np.full(len(rows), label))
        np.testing.assert_array_equal(found, ranks)


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("value", [NAN, -INF])
def test_a_model_of_nan_is_never_correct(classes: int, value: float) -> None:
    logits = np.full((classes, classes), value, np.float32)
    np.fill_diagonal(logits, NAN)
    total = measure(logits, np.arange(classes), np.ones(classes, np.float32))
    assert (float(total.top1), float(total.top5)) == (0, 0)
    assert np.isnan(float(total.loss))


def test_nan_of_another_class_counts_as_larger() -> None:
    logits = np.array([[NAN, 3, 1, 0, 0, 0, 0]], np.float32)
    assert rank_of_label(logits, np.array([1])).tolist() == [1]


def test_infinite_logits_have_their_rank() -> None:
    logits = np.array([[INF, 0, -INF]] * 3, np.float32)
    assert rank_of_label(logits, np.arange(3)).tolist() == [0, 1, 2]


def test_few_classes_are_all_among_the_first_five() -> None:
    logits, labels, _ = batch(50, classes=4)
    assert measure(logits, labels, np.ones(50, np.float32)).means()["top5"] == 1.0


def test_masked_rows_change_nothing_even_if_they_are_nan() -> None:
    logits, labels, _ = batch(6)
    mask = np.array([1, 1, 0, 1, 0, 1], np.float32)
    logits[mask == 0] = NAN
    kept = mask > 0
    assert measure(logits, labels, mask).means() == pytest.approx(
        oracle(logits[kept], labels[kept], mask[kept]), rel=1e-5
    )


def test_no_examples_have_means_of_zero() -> None:
    logits, labels, _ = batch(3)
    empty = {"loss": 0.0, "top1": 0.0, "top5": 0.0, "count": 0}
    assert measure(logits, labels, np.zeros(3, np.float32)).means() == empty
    assert Metrics.zero().means() == empty


def test_sums_over_parts_are_those_of_the_whole() -> None:
    logits, labels, mask = batch(100)
    total = Metrics.zero()
    for rows in np.split(np.arange(100), [25, 75]):
        part = measure(logits[rows], labels[rows], mask[rows])
        total = jax.tree.map(operator.add, total, part)
    whole = measure(logits, labels, mask)
    assert float(total.loss) == pytest.approx(float(whole.loss), rel=1e-6)
    for name in ("top1", "top5", "count"):
        assert float(getattr(total, name)) == float(getattr(whole, name))
