"""What preprocessing needs to know of the training split."""

from collections.abc import Callable

import numpy as np

from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.prepared import PreparedSource
from alexnet_jax.data.sources import Source, Subset
from alexnet_jax.errors import InputError


def mean_of(
    source: Source,
    kind: str,
    *,
    examples: int | None,
    threads: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Returns the mean to subtract, float32, in grey levels 0..255.

    A prepared set has the mean over all its pictures stored; it is read, not computed.

    Args:
      source: the training split.
      kind: "image": the mean of each pixel (paper section 2), (height, width, channels); "channel":
        the mean colour, (1, 1, channels); "none": zeros, (1, 1, channels).
      examples: number of pictures it is taken over, evenly spread; None: all.
      threads: threads that read.
      progress: called with pictures done and in all.

    Raises:
      InputError: no picture can be read.
    """
    channels = source.image_shape[-1]
    if kind == "none":
        return np.zeros((1, 1, channels), np.float32)
    stored = source.statistics().mean if isinstance(source, PreparedSource) else None
    if stored is not None and stored.shape == source.image_shape and examples is None:
        return _of_kind(kind, stored)
    count = min(examples or len(source), len(source))
    spread = np.linspace(0, len(source) - 1, count).round().astype(np.int64)
    part = source if count == len(source) else Subset(source, spread)
    total = np.zeros(source.image_shape, np.int64)  # integers: the same sum in any order
    readable = done = 0
    with evaluation_batches(part, batch_size=128, threads=threads, prefetch=4) as batches:
        for batch, _ in batches:
            chosen = batch.images[batch.weights > 0]
            total += chosen.sum(axis=0, dtype=np.int64)
            readable += len(chosen)
            done = min(done + len(batch.images), count)
            progress(done, count)
    if not readable:
        raise InputError("Not one picture of the training split can be read.")
    return _of_kind(kind, total / readable)


def _of_kind(kind: str, mean: np.ndarray) -> np.ndarray:
    """Returns the mean image, or the mean colour of it."""
    if kind == "channel":
        mean = mean.mean(axis=(0, 1), keepdims=True, dtype=np.float64)
    return mean.astype(np.float32)
