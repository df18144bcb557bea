"""What preprocessing needs to know of the training split."""

from collections.abc import Callable, Iterator

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.data.pipeline import evaluation_batches
from alexnet_jax.data.prepared import PreparedSource
from alexnet_jax.data.running_statistics import RunningStatistics
from alexnet_jax.data.sources import Source, Subset
from alexnet_jax.errors import InputError

Shape = tuple[int, ...]
Progress = Callable[[int, int], None]

_WHOLE_IMAGE = ("image", "image_at_crop")


def shapes_of(augment: ConfigDict, image_shape: Shape) -> dict[str, Shape]:
    """Returns the shape of each array of `statistics_of`, all of them float32.

    Args:
      augment: the `augment` part of the config; reads mean and color.
      image_shape: (height, width, channels) of the pictures.
    """
    channels = image_shape[-1]
    shapes = {"mean": image_shape if augment.mean in _WHOLE_IMAGE else (1, 1, channels)}
    if augment.color_noise != "none":
        shapes |= {"pca_components": (channels, channels), "pca_std": (channels,)}
    return shapes


def statistics_of(
    source: Source,
    augment: ConfigDict,
    *,
    threads: int,
    progress: Progress = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Returns what is subtracted from pictures and, for color noise, how their colors spread.

    A prepared set has the statistics of all its pictures stored; they are read, not computed.
    Otherwise the pictures are read once, and not at all where nothing of them is needed.

    Args:
      source: the training split.
      augment: the `augment` part of the config; reads mean, channel_mean, color, mean_examples.
      threads: threads that read.
      progress: called with pictures done and in all.

    Returns:
      float32 arrays in gray levels 0..255. "mean": the mean of each pixel (paper section 2) or
      (1, 1, channels): the mean color, the one given, or zeros. With color noise also
      "pca_components" and "pca_std", as `moments.Statistics` has them.

    Raises:
      InputError: no picture can be read.
    """
    shapes = shapes_of(augment, source.image_shape)
    arrays: dict[str, np.ndarray] = {}
    if augment.mean in (*_WHOLE_IMAGE, "channel") or "pca_components" in shapes:
        found = _stored(source, augment.mean_examples) or _computed(
            source, augment.mean_examples, threads, progress, colors="pca_components" in shapes
        )
        arrays |= found
    if augment.mean == "channel":
        arrays["mean"] = arrays["mean"].mean(axis=(0, 1), dtype=np.float64)
    if augment.mean == "given":
        arrays["mean"] = np.array(augment.channel_mean)
    if augment.mean == "none":
        arrays["mean"] = np.zeros(shapes["mean"])
    return {name: arrays[name].astype(np.float32).reshape(shapes[name]) for name in shapes}


def _stored(source: Source, examples: int | None) -> dict[str, np.ndarray] | None:
    """Returns the statistics of a prepared set if they are of the pictures asked for."""
    if not isinstance(source, PreparedSource) or examples is not None:
        return None
    stored = source.statistics()
    return stored._asdict() if stored.mean.shape == source.image_shape else None


def _computed(
    source: Source, examples: int | None, threads: int, progress: Progress, *, colors: bool
) -> dict[str, np.ndarray]:
    """Returns statistics over so many pictures, evenly spread, or all.

    The products of `colors` take longer than all the rest: without them there is the mean alone.
    """
    count = min(examples or len(source), len(source))
    spread = np.linspace(0, len(source) - 1, count).round().astype(np.int64)
    part = source if count == len(source) else Subset(source, spread)
    moments = RunningStatistics.zero(source.image_shape)
    for images in _readable(part, threads, progress):
        if colors:
            for image in images:
                moments.add(image)
        else:
            moments.image += images.sum(axis=0, dtype=np.int64)
            moments.count += len(images)
    if not moments.count:
        raise InputError("Not one picture of the training split can be read.")
    if not colors:
        return {"mean": moments.image / moments.count}
    return moments.statistics(class_counts=np.zeros(0))._asdict()


def _readable(source: Source, threads: int, progress: Progress) -> Iterator[np.ndarray]:
    """Yields the pictures that can be read, in batches uint8[n, height, width, channels]."""
    done = 0
    with evaluation_batches(source, batch_size=128, threads=threads, prefetch=4) as batches:
        for batch, _ in batches:
            yield batch.images[batch.mask > 0]
            done = min(done + len(batch.images), len(source))
            progress(done, len(source))
