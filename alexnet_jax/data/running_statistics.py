"""Sums over pictures, exact and of constant size, and the statistics they give."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MOST_IN_UINT32 = 2**32 // 255
_EXACT_IN_FLOAT32 = 2**24 // 255**2  # products of gray levels that add up to a whole number


@dataclass
class RunningStatistics:
    """Sums over the pixels of pictures of one shape; whole numbers, so that order is no matter.

    ImageNet's sums stay below 2**53: exact even where they pass through float64.

    Attributes:
      image: int64 or uint32[height, width, channels], the sum of the pictures.
      products: int64[channels, channels], the sum over all pixels of color times color.
      count: pictures.
    """

    image: np.ndarray
    products: np.ndarray
    count: int = 0

    @classmethod
    def zero(cls, shape: tuple[int, int, int], dtype: Any = np.int64) -> "RunningStatistics":
        """Returns the sums over no picture of this (height, width, channels).

        With dtype uint32 adding is twice as fast, and MOST_IN_UINT32 pictures are the most.
        """
        return cls(np.zeros(shape, dtype), np.zeros((shape[-1],) * 2, np.int64))

    def add(self, image: np.ndarray) -> None:
        """Adds one picture, uint8[height, width, channels]."""
        self.image += image
        exact: Any = np.float32 if image.shape[1] <= _EXACT_IN_FLOAT32 else np.float64
        planes: np.ndarray = np.ascontiguousarray(image.transpose(2, 0, 1)).astype(exact)
        products = np.einsum("irk,jrk->ijr", planes, planes)  # a sum of each row of pixels
        self.products += products.sum(axis=-1, dtype=np.float64).astype(np.int64)
        self.count += 1

    def merge(self, other: "RunningStatistics") -> None:
        """Adds the sums over other pictures."""
        self.image += other.image
        self.products += other.products
        self.count += other.count

    def statistics(self, class_counts: np.ndarray) -> "Statistics":
        """Returns what the sums say, at least one picture having been added."""
        mean = self.image / self.count
        channel_mean = mean.mean(axis=(0, 1))
        pixels = self.count * mean.shape[0] * mean.shape[1]
        covariance = self.products / pixels - np.outer(channel_mean, channel_mean)
        variances, vectors = np.linalg.eigh(covariance)
        return Statistics(
            mean.astype(np.float32),
            channel_mean,
            covariance,
            np.sqrt(np.maximum(variances, 0)),
            vectors,
            class_counts,
        )


class Statistics(NamedTuple):
    """What preprocessing may need to know of a split, in gray levels 0..255.

    Attributes:
      mean: float32[height, width, channels], the mean image (paper section 2).
      channel_mean: float64[channels].
      covariance: float64[channels, channels] of the colors of all pixels.
      pca_std: float64[channels], standard deviations along the principal axes, rising.
      pca_components: float64[channels, channels], the principal axes as columns (paper
        4.1; in the order and layout of the authors' color_pca).
      class_counts: int64[classes], pictures of each class.
    """

    mean: np.ndarray
    channel_mean: np.ndarray
    covariance: np.ndarray
    pca_std: np.ndarray
    pca_components: np.ndarray
    class_counts: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the statistics as an .npz file."""
        with path.open("wb") as file:
            np.savez(file, **self._asdict())

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Reads what `save` wrote."""
        with path.open("rb") as file, np.load(file) as arrays:
            return cls(**{name: arrays[name] for name in cls._fields})
