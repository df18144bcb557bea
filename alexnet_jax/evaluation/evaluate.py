"""What a net says of a whole split, every example counted once."""

import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from alexnet_jax.data.pipeline import Batch, EvaluationBatches, ReadOptions, read_ahead
from alexnet_jax.data.source import Source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.parallel.mesh import host_slice, put_batch

_log = logging.getLogger(__name__)

EvalStep = Callable[[Any, Any, Batch], Predictions]


def evaluate(
    eval_step: EvalStep,
    variables: Any,
    statistics: Any,
    source: Source,
    mesh: Mesh,
    *,
    batch_size: int,
    read: ReadOptions,
    progress: Callable[[int], None] = lambda step: None,
) -> Predictions:
    """Returns what the net says of every readable picture of a split, as arrays on the host.

    Args:
      eval_step: the compiled step of `jit_eval_step`.
      variables: the net's, of the state.
      statistics: of the state.
      source: the split.
      mesh: the devices.
      batch_size: examples a step; rounded up to what the devices divide.
      read: how batches are read ahead.
      progress: called with the number of steps done.

    Raises:
      InputError: no picture could be read.
      RuntimeError: not every example was seen once, or an unreadable one counts; a defect.
    """
    shares = mesh.shape["data"]
    batch_size = -(-batch_size // shares) * shares
    parts: list[Predictions] = []
    running: Predictions | None = None
    unreadable: list[int] = []
    steps = EvaluationBatches(source, batch_size, host_slice(mesh))
    with read_ahead(steps, ReadOptions(read.threads, read.prefetch)) as batches:
        for step, (batch, broken) in enumerate(batches, start=1):
            following = eval_step(variables, statistics, put_batch(batch, mesh))
            if running is not None:
                parts.append(jax.device_get(running))  # while the devices do the next step
            running = following
            progress(step)
            unreadable += broken
            for index in broken:
                _log.warning("Not evaluated, unreadable: %s", source.describe(index))
    whole = Predictions.join([*parts, jax.device_get(running)])
    real = whole.take(whole.indices < len(source))
    if not np.array_equal(np.sort(real.indices), np.arange(len(source))):
        raise RuntimeError(f"of {len(source)} examples not each was evaluated once")
    found = real.take(real.counted)
    if np.isin(unreadable, found.indices).any():
        raise RuntimeError("examples that could not be read were counted")
    if not len(found):
        raise InputError("Not one picture of the evaluation split can be read.")
    return found
