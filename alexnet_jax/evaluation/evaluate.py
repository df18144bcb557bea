"""The predictions of a model for a whole split, every example counted once."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data.pipeline import (
    Batch,
    EvaluationBatches,
    HostBatch,
    ReadOptions,
    read_ahead,
)
from alexnet_jax.data.source import Source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.parallel.mesh import host_slice, put_batch

_log = logging.getLogger(__name__)


def batches_of(source: Source, batch_size: int, mesh: Mesh) -> EvaluationBatches:
    """Returns this host's batches of a split; their size is rounded up to divide by the devices."""
    shares = mesh.shape["data"]
    return EvaluationBatches(source, -(-batch_size // shares) * shares, host_slice(mesh))


def run_batches(
    step: Callable[[Batch], Any],
    batches: EvaluationBatches,
    mesh: Mesh,
    read: ReadOptions,
    progress: Callable[[int], None] = lambda step: None,
) -> Iterator[tuple[HostBatch, Any]]:
    """Yields each batch of a split, without its images, and on the host what a step returns for it.

    Args:
      step: a compiled function of a batch on the devices.
      batches: of the split, from `batches_of`.
      mesh: the devices.
      read: how batches are read ahead; always by threads of this process.
      progress: called with the number of steps done.
    """
    previous: tuple[HostBatch, Any] | None = None
    with read_ahead(batches, ReadOptions(read.threads, read.prefetch)) as host_batches:
        for number, host_batch in enumerate(host_batches, start=1):
            outputs = step(put_batch(host_batch.batch, mesh))
            if previous:
                yield previous[0], jax.device_get(previous[1])  # while the devices do this step
            previous = host_batch._replace(batch=host_batch.batch._replace(images=())), outputs
            progress(number)
    if previous:
        yield previous[0], jax.device_get(previous[1])


def evaluate(
    eval_step: Callable[[Batch], Predictions],
    batches: EvaluationBatches,
    mesh: Mesh,
    read: ReadOptions,
    progress: Callable[[int], None] = lambda step: None,
) -> Predictions:
    """Returns the predictions for every readable image of a split, as arrays on the host.

    Args:
      eval_step: from `jit_eval_step`, with its variables and statistics bound.
      batches: of the split, from `batches_of`.
      mesh: the devices.
      read: how batches are read ahead; always by threads of this process.
      progress: called with the number of steps done.

    Raises:
      InputError: no image can be read.
      RuntimeError: internal error: an example was not evaluated exactly once, or an unreadable one
        was counted.
    """
    source = batches.source
    parts: list[Predictions] = []
    unreadable: list[int] = []
    for (_, broken), predictions in run_batches(eval_step, batches, mesh, read, progress):
        parts.append(predictions)
        unreadable += broken
        for index in broken:
            _log.warning("Not evaluated, unreadable: %s", source.describe(index))
    whole = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    real = whole.take(whole.example_index < len(source))
    if not np.array_equal(np.sort(real.example_index), np.arange(len(source))):
        raise RuntimeError(f"not each of {len(source)} examples was evaluated exactly once")
    found = real.take(real.mask)
    if np.isin(unreadable, found.example_index).any():
        raise RuntimeError("unreadable examples were counted")
    if not len(found):
        raise InputError(f"No image of the split {source.split} of {source.name} can be read.")
    return found
