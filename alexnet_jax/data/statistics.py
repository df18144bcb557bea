"""Statistics of a split's images: running sums, and what preprocessing takes from them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alexnet_jax.errors import InputError

if TYPE_CHECKING:
    from alexnet_jax.data.source import Source

Shape = tuple[int, ...]

_EXACT_IN_FLOAT32 = 2**24 // 255**2  # products of gray levels that add up to an integer
_CHUNK = 128  # images that a thread reads at a time


class Statistics(NamedTuple):
    """What preprocessing may need to know of a split, in gray levels 0..255.

    Attributes:
      mean: float32[height, width, channels], the mean image (paper section 2).
      channel_mean: float64[channels].
      covariance: float64[channels, channels] of the colors of all pixels.
      pca_std: float64[channels], standard deviations along the principal components, ascending.
      pca_components: float64[channels, channels], the principal components as columns (paper 4.1;
        in the order and layout of the authors' color_pca).
      class_counts: int64[classes], images of each class.
    """

    mean: np.ndarray
    channel_mean: np.ndarray
    covariance: np.ndarray
    pca_std: np.ndarray
    pca_components: np.ndarray
    class_counts: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the statistics to a path that ends in .npz."""
        np.savez(path, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Reads what `save` wrote."""
        with path.open("rb") as file:
            return cls(**np.load(file))


@dataclass
class RunningStatistics:
    """Sums over the pixels of images of one shape; integers, so that the order does not matter.

    ImageNet's sums stay below 2**53: exact even where they pass through float64.

    Attributes:
      image: int64 or uint32[height, width, channels], the sum of the images.
      products: int64[channels, channels], the sum over all pixels of color times color.
      count: images.
    """

    image: np.ndarray
    products: np.ndarray
    count: int = 0

    @classmethod
    def zero(cls, shape: Shape, dtype: Any = np.int64) -> "RunningStatistics":
        """Returns the sums over no image of this (height, width, channels).

        With dtype uint32 adding is twice as fast, for at most 2**32 // 255 images.
        """
        return cls(np.zeros(shape, dtype), np.zeros((shape[-1],) * 2, np.int64))

    def add(self, image: np.ndarray, *, colors: bool = True) -> None:
        """Adds one image, uint8[height, width, channels], to all sums or only to that of images."""
        self.image += image
        self.count += 1
        if not colors:
            return
        exact: Any = np.float32 if image.shape[1] <= _EXACT_IN_FLOAT32 else np.float64
        planes: np.ndarray = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(exact)
        products = np.einsum("irk,jrk->ijr", planes, planes)  # a sum of each row of pixels
        self.products += products.sum(axis=-1, dtype=np.float64).astype(np.int64)

    def merge(self, other: "RunningStatistics") -> None:
        """Adds the sums over other images."""
        self.image += other.image
        self.products += other.products
        self.count += other.count

    def statistics(self, class_counts: np.ndarray) -> Statistics:
        """Returns the statistics of the images added, at least one."""
        mean = self.image / self.count
        channel_mean = mean.mean(axis=(0, 1))
        pixels = self.count * mean.shape[0] * mean.shape[1]
        covariance = self.products / pixels - np.outer(channel_mean, channel_mean)
        variances, vectors = np.linalg.eigh(covariance)
        std = np.sqrt(np.maximum(variances, 0))
        image = mean.astype(np.float32)
        return Statistics(image, channel_mean, covariance, std, vectors, class_counts)


@dataclass(frozen=True)
class StatisticsOptions:
    """Which statistics of the training split a run needs.

    Attributes:
      mean: what is subtracted from images: "image" or "image_at_crop", the mean of each pixel
        (paper section 2); "channel", the mean color; "given", `channel_mean`; or "none".
      channel_mean: the color given.
      colors: whether the principal components of the colors are needed, for color noise.
      num_examples: take only so many images, evenly spread over the split; None: all.
    """

    mean: str
    channel_mean: tuple[float, ...] = ()
    colors: bool = False
    num_examples: int | None = None

    def shapes(self, image_shape: Shape) -> dict[str, Shape]:
        """Returns the shape of each float32 array of `statistics_of`."""
        channels = image_shape[-1]
        shapes = {"mean": image_shape if self.mean.startswith("image") else (1, 1, channels)}
        if self.colors:
            shapes |= {"pca_components": (channels, channels), "pca_std": (channels,)}
        return shapes


def statistics_of(
    source: "Source",
    options: StatisticsOptions,
    threads: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, np.ndarray]:
    """Returns what is subtracted from images and, for color noise, how their colors vary.

    A prepared dataset has the statistics of all its images stored; they are read, not computed.
    Otherwise the images are read once, and not at all where nothing of them is needed.

    Args:
      source: the training split.
      options: what is needed.
      threads: threads that read.
      progress: called with images done and in total.

    Returns:
      float32 arrays in gray levels 0..255. "mean": the mean of each pixel, or (1, 1, channels): the
      mean color, the one given, or zeros. With colors also "pca_components" and "pca_std", as
      `Statistics` has them.

    Raises:
      InputError: no image can be read.
    """
    shapes = options.shapes(source.image_shape)
    fixed = {"given": options.channel_mean, "none": np.zeros(source.image_shape[-1])}
    arrays: dict[str, Any] = {}
    if options.colors or options.mean not in fixed:
        arrays = _stored(source, options) or _computed(source, options, threads, progress)
    if options.mean == "channel":
        arrays["mean"] = arrays["mean"].mean(axis=(0, 1), dtype=np.float64)
    elif options.mean in fixed:
        arrays["mean"] = fixed[options.mean]
    return {
        name: np.asarray(arrays[name], np.float32).reshape(shape) for name, shape in shapes.items()
    }


def _stored(source: "Source", options: StatisticsOptions) -> dict[str, Any] | None:
    """Returns the statistics stored with a source if they are of the images requested."""
    stored = source.statistics() if options.num_examples is None else None
    return stored._asdict() if stored and stored.mean.shape == source.image_shape else None


def _computed(
    source: "Source", options: StatisticsOptions, threads: int, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Reads the images; without colors, whose sums take longer than all else, only their mean."""
    total = min(options.num_examples or len(source), len(source))
    spread = np.linspace(0, len(source) - 1, total).round().astype(np.int64)

    def sums_of(indices: np.ndarray) -> RunningStatistics:
        examples = source.load(indices)
        sums = RunningStatistics.zero(source.image_shape)
        for image in examples.images[examples.readable]:
            sums.add(image, colors=options.colors)
        return sums

    whole = RunningStatistics.zero(source.image_shape)
    chunks = [spread[start : start + _CHUNK] for start in range(0, total, _CHUNK)]
    with ThreadPoolExecutor(threads) as pool:  # an error closes `map`, which cancels the rest
        for number, sums in enumerate(pool.map(sums_of, chunks), start=1):
            whole.merge(sums)
            progress(min(number * _CHUNK, total), total)
    if not whole.count:
        raise InputError("Not one image of the training split can be read.")
    if not options.colors:
        return {"mean": whole.image / whole.count}
    return whole.statistics(class_counts=np.zeros(0))._asdict()
