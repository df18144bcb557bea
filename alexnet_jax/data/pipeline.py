"""Batches on the host as a pure function of (seed, step), for any number of threads or hosts."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import grain
import numpy as np
from absl import flags

from alexnet_jax.data.sources import Source
from alexnet_jax.runtime.worker_process import follow_parent


class Batch(NamedTuple):
    """A batch: arrays of this host's part of it, global arrays on the devices, or their shapes.

    Attributes:
      images: uint8 (n, height, width, channels).
      labels: int32 (n,).
      mask: float32 (n,); 0 for padding and for pictures that could not be read.
      stream_position: uint32 (n,); place in the stream of examples, which random keys go by.
    """

    images: Any
    labels: Any
    mask: Any
    stream_position: Any


class HostBatch(NamedTuple):
    """A batch and the indices of its pictures that could not be read."""

    batch: Batch
    unreadable: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class HostSlice:
    """Which rows of every global batch this host reads."""

    index: int = 0
    count: int = 1

    def of(self, rows: np.ndarray) -> np.ndarray:
        """Returns this host's contiguous part of the rows of a global batch."""
        size = len(rows) // self.count
        return rows[self.index * size : (self.index + 1) * size]


def training_indices(seed: int, stream_position: np.ndarray, num_examples: int) -> np.ndarray:
    """Returns which example stands at each place of the endless, shuffled training stream.

    Every run of `num_examples` places that starts at a multiple of it, an epoch, is a permutation
    of its own. Grain's index_shuffle needs no memory and does not change between versions.
    """
    epochs, places = (array.tolist() for array in np.divmod(stream_position, num_examples))
    # Mixed, not added up: the second epoch of seed 0 must not be the first of seed 1.
    seeds = {
        epoch: int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0])
        for epoch in set(epochs)
    }
    return np.array(
        [
            grain.experimental.index_shuffle(
                place, max_index=num_examples - 1, seed=seeds[epoch], rounds=4
            )
            for epoch, place in zip(epochs, places, strict=True)
        ]
    )


@dataclasses.dataclass(frozen=True)
class _TrainingSteps:
    """The training batches by step, as a random-access source for Grain."""

    source: Source
    seed: int
    batch_size: int
    host: HostSlice

    def __len__(self) -> int:
        return 2**31 - 1

    def __getitem__(self, step: int) -> HostBatch:
        stream_position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        stream_position = self.host.of(stream_position)
        indices = training_indices(self.seed, stream_position, len(self.source))
        return _read(self.source, indices, np.ones(len(indices), bool), stream_position)


@dataclasses.dataclass(frozen=True)
class _EvaluationSteps:
    """The whole split once, in order; the last batch is filled up with rows of weight 0."""

    source: Source
    batch_size: int
    host: HostSlice

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __getitem__(self, step: int) -> HostBatch:
        stream_position = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        stream_position = self.host.of(stream_position)
        real = stream_position < len(self.source)
        return _read(self.source, np.where(real, stream_position, 0), real, stream_position)


def _read(
    source: Source, indices: np.ndarray, real: np.ndarray, stream_position: np.ndarray
) -> HostBatch:
    examples = source.read(indices)
    batch = Batch(
        images=examples.images,
        labels=examples.labels.astype(np.int32),
        mask=(examples.readable & real).astype(np.float32),
        stream_position=stream_position.astype(np.uint32),
    )
    unreadable = indices[~examples.readable & real]
    return HostBatch(batch, tuple(int(index) for index in unreadable))


@contextlib.contextmanager
def training_batches(
    source: Source,
    *,
    seed: int,
    batch_size: int,
    start: int = 0,
    threads: int = 1,
    prefetch: int = 2,
    processes: int = 0,
    host: HostSlice = HostSlice(),
) -> Iterator[Iterator[HostBatch]]:
    """Opens the endless training batches from step `start` on; closes their readers at the end.

    Batch `step` is the same whatever `start`, `threads`, `prefetch` and `processes` are, and the
    hosts' parts together are the same batch, row for row, for any number of hosts.

    Args:
      source: the training split.
      seed: fixes the order.
      batch_size: examples of a global batch; the number of hosts divides it.
      start: step of the first batch.
      threads: threads that read, each a batch at a time.
      prefetch: batches read ahead.
      processes: that read, every one with its own threads and its own batches ahead; 0: this one.
      host: which rows this host reads.
    """
    steps = _TrainingSteps(source, seed, batch_size, host)
    with _iterate(steps, start, threads, prefetch, processes) as batches:
        yield batches


@contextlib.contextmanager
def evaluation_batches(
    source: Source,
    *,
    batch_size: int,
    threads: int = 1,
    prefetch: int = 2,
    host: HostSlice = HostSlice(),
) -> Iterator[Iterator[HostBatch]]:
    """Opens the split once from front to back in batches of one size; see `training_batches`."""
    steps = _EvaluationSteps(source, batch_size, host)
    with _iterate(steps, 0, threads, prefetch) as batches:
        yield batches


@contextlib.contextmanager
def _iterate(
    steps: _TrainingSteps | _EvaluationSteps,
    start: int,
    threads: int,
    prefetch: int,
    processes: int = 0,
) -> Iterator[Iterator[HostBatch]]:
    steps_from_start = grain.MapDataset.source(steps)[start:]
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(prefetch, threads))
    dataset = steps_from_start.to_iter_dataset(options)
    if processes:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain asks absl for its flags; the program has its own
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(processes, prefetch), _start_reader
        )
    iterator = iter(dataset)
    try:
        yield iterator
    finally:
        iterator.close()


def _start_reader(index: int, count: int) -> None:
    del index, count
    follow_parent()
