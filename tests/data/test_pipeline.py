"""Batches as a pure function of (seed, step), whatever threads, read-ahead and hosts there are."""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from alexnet_jax.data.pipeline import (
    Batch,
    HostBatch,
    HostSlice,
    evaluation_batches,
    training_batches,
    training_indices,
)
from alexnet_jax.data.sources import ArraySource, Examples

SIZE = 23  # a prime: no batch size divides it
BATCH = 8


def numbered(size: int) -> ArraySource:
    """A source whose pictures and labels tell their own index."""
    labels = np.arange(size, dtype=np.int32)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (size, 2, 2, 1)).copy()
    return ArraySource(images, labels, tuple(map(str, range(size))), "numbered", 2)


@dataclasses.dataclass(frozen=True)
class PartlyBroken(ArraySource):
    """A source some of whose pictures cannot be read."""

    broken: tuple[int, ...] = ()

    def read(self, indices: np.ndarray) -> Examples:
        whole = super().read(indices)
        readable = ~np.isin(indices, self.broken)
        return Examples(whole.images * readable[:, None, None, None], whole.labels, readable)


def partly_broken(size: int, *broken: int) -> PartlyBroken:
    whole = numbered(size)
    return PartlyBroken(**vars(whole), broken=broken)


def first(batches: Iterator[HostBatch], count: int) -> list[HostBatch]:
    return list(itertools.islice(batches, count))


def train(count: int, **options) -> list[HostBatch]:
    options = {"source": numbered(SIZE), "seed": 3, "batch_size": BATCH} | options
    with training_batches(options.pop("source"), **options) as batches:
        return first(batches, count)


def evaluate(source: ArraySource, **options) -> list[HostBatch]:
    with evaluation_batches(source, **options) as batches:
        return list(batches)


def assert_same(some: list[HostBatch], others: list[HostBatch]) -> None:
    assert len(some) == len(others)
    for (batch, unreadable), (other, other_unreadable) in zip(some, others, strict=True):
        assert unreadable == other_unreadable
        for name in Batch._fields:
            np.testing.assert_array_equal(getattr(batch, name), getattr(other, name), err_msg=name)


def test_a_batch_holds_what_its_positions_say() -> None:
    for step, (batch, unreadable) in enumerate(train(9)):
        positions = np.arange(step * BATCH, (step + 1) * BATCH)
        indices = training_indices(3, positions, SIZE)
        np.testing.assert_array_equal(batch.stream_position, positions)
        np.testing.assert_array_equal(batch.labels, indices)
        np.testing.assert_array_equal(batch.images[:, 1, 0, 0], indices)
        np.testing.assert_array_equal(batch.mask, np.ones(BATCH))
        assert unreadable == ()
        types = [getattr(batch, name).dtype for name in Batch._fields]
        assert types == [np.uint8, np.int32, np.float32, np.uint32]


@pytest.mark.parametrize(("threads", "prefetch"), [(1, 1), (1, 5), (2, 1), (2, 4), (3, 2)])
def test_threads_and_prefetch_change_nothing(threads: int, prefetch: int) -> None:
    assert_same(train(12, threads=threads, prefetch=prefetch), train(12))


def test_processes_change_nothing() -> None:
    with_processes = train(7, start=2, threads=2, prefetch=1, processes=2)
    assert_same(with_processes, train(9)[2:])


@pytest.mark.parametrize("start", [1, 2, 3, 10, 11])
def test_starting_later_is_the_same_stream_cut_off(start: int) -> None:
    assert_same(train(13 - start, start=start, threads=2), train(13)[start:])


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_parts_together_are_the_batch(hosts: int) -> None:
    source = partly_broken(SIZE, 5, 17)
    parts = [train(12, source=source, host=HostSlice(host, hosts)) for host in range(hosts)]
    joined = [
        HostBatch(
            Batch(
                *(np.concatenate(arrays) for arrays in zip(*(p.batch for p in row), strict=True))
            ),
            sum((p.unreadable for p in row), ()),
        )
        for row in zip(*parts, strict=True)
    ]
    assert {len(part.batch.labels) for part in parts[0]} == {BATCH // hosts}
    assert_same(joined, train(12, source=source))


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


def test_an_order_is_spread_over_the_whole_split() -> None:
    """The first tenth of an epoch comes from everywhere, also where files lie class by class."""
    drawn = np.array(epoch(0, 0, 5000)[:500])
    shares = np.bincount(drawn // 500, minlength=10)
    assert shares.min() > 25, shares  # 50 expected, standard deviation 6.4
    assert shares.max() < 75, shares


def test_unreadable_pictures_weigh_nothing_and_are_named() -> None:
    broken = (5, 17)
    found, whole = train(9, source=partly_broken(SIZE, *broken)), train(9)
    for (batch, unreadable), (expected, _) in zip(found, whole, strict=True):
        missing = np.isin(expected.labels, broken)
        assert unreadable == tuple(expected.labels[missing])
        np.testing.assert_array_equal(batch.mask, ~missing)
        np.testing.assert_array_equal(batch.images[~missing], expected.images[~missing])
        assert not batch.images[missing].any()
        np.testing.assert_array_equal(batch.labels, expected.labels)
        np.testing.assert_array_equal(batch.stream_position, expected.stream_position)
    assert sum(len(unreadable) for _, unreadable in found) == 6  # two in each of three epochs


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize("size", [1, BATCH - 1, BATCH, BATCH + 1, SIZE])
def test_evaluation_covers_each_example_once(size: int, hosts: int) -> None:
    seen: list[int] = []
    for host in range(hosts):
        batches = evaluate(numbered(size), batch_size=BATCH, threads=2, host=HostSlice(host, hosts))
        assert len(batches) == -(-size // BATCH)  # every host does as many steps
        for batch, unreadable in batches:
            assert unreadable == ()
            assert batch.images.shape == (BATCH // hosts, 2, 2, 1)
            real = batch.mask == 1
            np.testing.assert_array_equal(batch.mask[~real], 0)
            np.testing.assert_array_equal(batch.images[real, 0, 0, 0], batch.labels[real])
            seen += batch.labels[real].tolist()
    assert sorted(seen) == list(range(size))


def test_evaluation_goes_front_to_back() -> None:
    batches = evaluate(numbered(SIZE), batch_size=5, threads=3)
    labels = np.concatenate([batch.labels for batch, _ in batches])
    np.testing.assert_array_equal(labels[:SIZE], np.arange(SIZE))


def test_evaluation_names_each_unreadable_picture_once() -> None:
    """Picture 0 fills up the last batch: there it must not be told again."""
    batches = evaluate(partly_broken(10, 0, 9), batch_size=4)
    assert [unreadable for _, unreadable in batches] == [(0,), (), (9,)]
    mask = np.concatenate([batch.mask for batch, _ in batches])
    np.testing.assert_array_equal(mask, [0, *[1] * 8, 0, 0, 0])
