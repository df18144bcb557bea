"""What a net said of each example: enough to measure it in any way, and small enough to keep."""

from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.training.metrics import rank_of_label

MOST_PROBABLE = 5


@flax.struct.dataclass
class Predictions:
    """Some 60 bytes an example: arrays of a batch on the devices, of a whole split on the host.

    Attributes:
      counted: bool (n,); False for padding and for pictures that could not be read.
      indices: uint32 (n,), the example's place in its split.
      labels: int32 (n,), the correct class.
      ranks: int32 (n,), the 0-based place of the correct class among the most probable ones.
      log_probabilities: float32 (n,), of the correct class, natural.
      classes: int32 (n, k), the k = min(5, classes) most probable classes in falling order.
      probabilities: float32 (n, k), theirs.
    """

    counted: Any
    indices: Any
    labels: Any
    ranks: Any
    log_probabilities: Any
    classes: Any
    probabilities: Any

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def right(self) -> np.ndarray:
        """Bool (n,): whether the most probable class is the correct one."""
        return np.asarray(self.ranks < 1)

    def means(self) -> dict[str, float | int]:
        """Returns loss (nats), top1 and top5 as means (fractions), and the count."""
        return {
            "loss": float(-np.mean(self.log_probabilities, dtype=np.float64)),
            "top1": float(np.mean(self.right)),
            "top5": float(np.mean(self.ranks < self.classes.shape[1])),
            "count": len(self),
        }

    @classmethod
    def join(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Returns several batches, which lie on the host, as one."""
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)

    def take(self, rows: np.ndarray) -> "Predictions":
        """Returns the examples at these rows, or those for which a mask is true."""
        return jax.tree.map(lambda array: array[rows], self)


def predict(log_probabilities: jax.Array, batch: Batch) -> Predictions:
    """Returns what is kept of (batch, classes) log-probabilities."""
    own = jnp.take_along_axis(log_probabilities, batch.labels[:, None], axis=1)[:, 0]
    most = min(MOST_PROBABLE, log_probabilities.shape[1])
    best, classes = jax.lax.top_k(log_probabilities, most)
    return Predictions(
        counted=batch.mask > 0,
        indices=batch.stream_position,
        labels=batch.labels,
        ranks=rank_of_label(log_probabilities, batch.labels),
        log_probabilities=own,
        classes=classes,
        probabilities=jnp.exp(best),
    )
