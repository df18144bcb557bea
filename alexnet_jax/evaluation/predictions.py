"""The predictions for each example: enough for every measure, and small enough to keep."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.training.metrics import Metrics, rank_of_label


@flax.struct.dataclass
class Predictions:
    """About 60 bytes an example: arrays of a batch on the devices, of a whole split on the host.

    Attributes:
      mask: bool[n]; False for padding and unreadable images.
      example_index: uint32[n], index of the example in its split.
      labels: int32[n], the correct class.
      ranks: int32[n], 0-based rank of the correct class among all classes by probability.
      log_probabilities: float32[n], natural logarithm of the probability of the correct class.
      classes: int32[n, k], the k = min(5, classes) most probable classes in descending order.
      probabilities: float32[n, k], their probabilities.
    """

    mask: Any
    example_index: Any
    labels: Any
    ranks: Any
    log_probabilities: Any
    classes: Any
    probabilities: Any

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """bool[n], whether the most probable class is the correct one."""
        return np.asarray(self.ranks < 1)

    @property
    def in_top5(self) -> np.ndarray:
        """bool[n], whether the correct class is among the five most probable."""
        return np.asarray(self.ranks < self.classes.shape[1])

    @property
    def confidence(self) -> np.ndarray:
        """float32[n], the probability of the most probable class."""
        return np.asarray(self.probabilities[:, 0])

    def means(self) -> dict[str, float | int]:
        """Returns loss (nats), top1 and top5 as means (fractions), and the count."""
        loss = -np.sum(self.log_probabilities, dtype=np.float64)
        top1, top5 = np.sum(self.correct), np.sum(self.in_top5)
        return Metrics(loss, top1, top5, len(self)).means()  # type: ignore[arg-type]

    def take(self, rows: np.ndarray) -> "Predictions":
        """Returns the examples at these rows, or those for which a mask is true."""
        return jax.tree.map(lambda array: array[rows], self)


def predict(log_probabilities: jax.Array, batch: Batch) -> Predictions:
    """Returns the predictions of float32[batch, classes] log-probabilities."""
    own = jnp.take_along_axis(log_probabilities, batch.labels[:, None], axis=1)[:, 0]
    classes, best = top_classes(log_probabilities, 5)
    return Predictions(
        mask=batch.mask > 0,
        example_index=batch.stream_position,
        labels=batch.labels,
        ranks=rank_of_label(log_probabilities, batch.labels),
        log_probabilities=own,
        classes=classes,
        probabilities=best,
    )


def top_classes(log_probabilities: jax.Array, most: int) -> tuple[jax.Array, jax.Array]:
    """Returns the most probable classes in descending order, at most `most`, and probabilities.

    Args:
      log_probabilities: float32[batch, classes].
      most: their number.
    """
    best, classes = jax.lax.top_k(log_probabilities, min(most, log_probabilities.shape[1]))
    return classes, jnp.exp(best)
