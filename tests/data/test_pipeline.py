"""Batches as a pure function of (seed, step), whatever threads, read-ahead and hosts there are."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from alexnet_jax.data.pipeline import (
    Batch,
    EvaluationBatches,
    HostBatch,
    HostSlice,
    ReadOptions,
    TrainingBatches,
    read_ahead,
    training_indices,
)
from alexnet_jax.data.source import ArraySource

SIZE = 23  # a prime: no batch size divides it
BATCH = 8
SEED = 3

Numbered = Callable[..., ArraySource]


@pytest.fixture
def numbered(array_source: Callable[..., ArraySource]) -> Numbered:
    """Returns (size, broken indices) -> a source whose images and labels are their own index."""

    def make(size: int = SIZE, *broken: int) -> ArraySource:
        labels = np.arange(size, dtype=np.int32)
        images = np.empty((size, 2, 2, 1), np.uint8)
        images[:] = labels.astype(np.uint8)[:, None, None, None]
        return array_source(images, labels, size, broken)

    return make


def read(
    batches: TrainingBatches | EvaluationBatches,
    count: int | None = None,
    start: int = 0,
    **options,
) -> list[HostBatch]:
    with read_ahead(batches, ReadOptions(**options), start) as iterator:
        return list(itertools.islice(iterator, count))


def assert_same(some: list[HostBatch], others: list[HostBatch]) -> None:
    assert len(some) == len(others)
    for (batch, unreadable), (other, other_unreadable) in zip(some, others, strict=True):
        assert unreadable == other_unreadable
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name), err_msg=name)


def test_a_batch_holds_the_examples_of_its_stream_positions(numbered: Numbered) -> None:
    batches = TrainingBatches(numbered(), SEED, BATCH)
    for step in range(9):
        batch, unreadable = batches[step]
        positions = np.arange(step * BATCH, (step + 1) * BATCH)
        indices = training_indices(SEED, positions, SIZE)
        np.testing.assert_array_equal(batch.stream_position, positions)
        np.testing.assert_array_equal(batch.labels, indices)
        np.testing.assert_array_equal(batch.images[:, 1, 0, 0], indices)
        np.testing.assert_array_equal(batch.mask, np.ones(BATCH))
        assert unreadable == ()
        types = [getattr(batch, name).dtype for name in Batch._fields]
        assert types == [np.uint8, np.int32, np.float32, np.uint32]


@pytest.mark.parametrize(
    ("start", "options"),
    [
        (0, {"threads": 1, "prefetch": 1}),
        (1, {"threads": 1, "prefetch": 5}),
        (3, {"threads": 3, "prefetch": 2}),
        (11, {"threads": 2, "prefetch": 4}),
        (2, {"threads": 2, "prefetch": 1, "processes": 2}),
    ],
)
def test_reading_ahead_changes_no_batch(numbered: Numbered, start: int, options: dict) -> None:
    """Whatever threads and processes read, and from whatever step on."""
    batches = TrainingBatches(numbered(), SEED, BATCH)
    expected = [batches[step] for step in range(start, 13)]
    assert_same(read(batches, 13 - start, start, **options), expected)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_parts_of_all_hosts_together_are_the_batch(numbered: Numbered, hosts: int) -> None:
    whole = TrainingBatches(numbered(SIZE, 5, 17), SEED, BATCH)
    for step in range(12):
        parts = [
            TrainingBatches(whole.source, SEED, BATCH, HostSlice(host, hosts))[step]
            for host in range(hosts)
        ]
        arrays = zip(*(part.batch for part in parts), strict=True)
        joined = HostBatch(
            Batch(*map(np.concatenate, arrays)), sum((part.unreadable for part in parts), ())
        )
        assert {len(part.batch.labels) for part in parts} == {BATCH // hosts}
        assert_same([joined], [whole[step]])


def epoch(seed: int, number: int, size: int = SIZE) -> tuple[int, ...]:
    positions = np.arange(number * size, (number + 1) * size)
    return tuple(training_indices(seed, positions, size).tolist())


@pytest.mark.parametrize("size", [1, 2, 3, SIZE, 1000])
def test_every_epoch_is_a_permutation(size: int) -> None:
    for seed, number in itertools.product((0, 7, 2**31 - 1), (0, 1, 5)):
        assert sorted(epoch(seed, number, size)) == list(range(size))


def test_orders_differ_between_epochs_and_seeds() -> None:
    """Two seeds have no epoch in common: neither the same one nor one shifted in time."""
    orders = [epoch(seed, number) for seed, number in itertools.product(range(6), range(6))]
    assert len(set(orders)) == len(orders)


def test_an_order_stays_the_same_forever() -> None:
    """A run that is resumed with another version of numpy continues its stream."""
    assert epoch(3, 1, 10) == (0, 6, 2, 1, 3, 7, 4, 9, 8, 5)


@pytest.mark.parametrize("size", [5, 12])
def test_orders_are_uniform_over_ordered_pairs(size: int) -> None:
    """Every pair of examples follows each other equally often, and every pair of positions."""
    epochs = 6000
    orders = np.array([epoch(1, number, size) for number in range(epochs)])
    for first, second in ((0, 1), (0, size - 1), (size // 2, size // 2 + 1)):
        pairs = np.bincount(orders[:, first] * size + orders[:, second], minlength=size**2)
        pairs = np.delete(pairs, np.arange(size) * (size + 1))  # an example never follows itself
        expected = epochs / len(pairs)
        chi_squared = ((pairs - expected) ** 2 / expected).sum()
        degrees = len(pairs) - 1
        assert abs(chi_squared - degrees) < 4 * np.sqrt(2 * degrees)


def test_an_order_is_spread_over_the_whole_split() -> None:
    """The first tenth of an epoch comes from everywhere, since files are stored class by class."""
    drawn = np.array(epoch(0, 0, 5000)[:500])
    shares = np.bincount(drawn // 500, minlength=10)
    assert shares.min() > 25, shares  # 50 expected, standard deviation 6.4
    assert shares.max() < 75, shares


def test_unreadable_images_are_masked_and_reported(numbered: Numbered) -> None:
    broken = (5, 17)
    found = TrainingBatches(numbered(SIZE, *broken), SEED, BATCH)
    whole = TrainingBatches(numbered(), SEED, BATCH)
    count = 0
    for step in range(9):  # three epochs
        (batch, unreadable), expected = found[step], whole[step].batch
        missing = np.isin(expected.labels, broken)
        assert unreadable == tuple(expected.labels[missing])
        np.testing.assert_array_equal(batch.mask, ~missing)
        np.testing.assert_array_equal(batch.images[~missing], expected.images[~missing])
        assert not batch.images[missing].any()
        np.testing.assert_array_equal(batch.labels, expected.labels)
        np.testing.assert_array_equal(batch.stream_position, expected.stream_position)
        count += len(unreadable)
    assert count == 6


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("size", [1, BATCH - 1, BATCH, BATCH + 1, SIZE])
def test_evaluation_covers_each_example_once(numbered: Numbered, size: int, hosts: int) -> None:
    seen: list[int] = []
    for host in range(hosts):
        steps = EvaluationBatches(numbered(size), BATCH, HostSlice(host, hosts))
        batches = read(steps, threads=2)
        assert len(batches) == -(-size // BATCH)  # every host does as many steps
        for batch, unreadable in batches:
            assert unreadable == ()
            assert batch.images.shape == (BATCH // hosts, 2, 2, 1)
            real = batch.mask == 1
            np.testing.assert_array_equal(batch.mask[~real], 0)
            np.testing.assert_array_equal(batch.images[real, 0, 0, 0], batch.labels[real])
            seen += batch.labels[real].tolist()
    assert sorted(seen) == list(range(size))


def test_evaluation_goes_front_to_back(numbered: Numbered) -> None:
    batches = read(EvaluationBatches(numbered(), 5), threads=3)
    labels = np.concatenate([batch.labels for batch, _ in batches])
    np.testing.assert_array_equal(labels[:SIZE], np.arange(SIZE))


def test_evaluation_reports_each_unreadable_image_once(numbered: Numbered) -> None:
    """Image 0 pads the last batch: there it must not be reported again."""
    batches = read(EvaluationBatches(numbered(10, 0, 9), 4))
    assert [unreadable for _, unreadable in batches] == [(0,), (), (9,)]
    mask = np.concatenate([batch.mask for batch, _ in batches])
    np.testing.assert_array_equal(mask, [0, *[1] * 8, 0, 0, 0])
