"""Metrics as sums and a count: added over batches and devices, divided once."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Metrics:
    """Sums over examples; float32 counts are exact up to 2**24 examples.

    Attributes:
      loss: sum of cross-entropies, in nats.
      top1, top5: numbers of examples whose label is ranked first, or among the first five.
      count: number of examples.
    """

    loss: jax.Array
    top1: jax.Array
    top5: jax.Array
    count: jax.Array

    @classmethod
    def zero(cls) -> "Metrics":
        """Returns the sums over no examples."""
        return cls(*(jnp.zeros((), jnp.float32) for _ in range(4)))

    def means(self) -> dict[str, float | int]:
        """Returns loss, top1 and top5 as means (fractions), and the count."""
        sums, count = jax.tree.map(float, vars(self)), int(self.count)
        return {name: total / max(count, 1) for name, total in sums.items()} | {"count": count}


def rank_of_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns int32[batch], the 0-based rank of each label among the logits, largest first.

    Of equal logits the lower class comes first. A NaN logit counts as larger than any other; if it
    is the label's own, its rank is last: `classes`.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    classes = jnp.arange(logits.shape[1])
    before = ~(logits <= own) | ((logits == own) & (classes < labels[:, None]))
    return jnp.sum(before, axis=1)


def measure(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Metrics:
    """Returns the sums over a batch.

    Args:
      logits: float[batch, classes].
      labels: int[batch].
      mask: float[batch], 1 or 0 for each example; those with 0 are left out.
    """
    log_probabilities = jax.nn.log_softmax(logits)
    losses = -jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    rank = rank_of_label(logits, labels)
    return Metrics(
        loss=jnp.sum(jnp.where(mask > 0, losses * mask, 0.0)),
        top1=jnp.sum(mask * (rank < 1)),
        top5=jnp.sum(mask * (rank < min(5, logits.shape[1]))),
        count=jnp.sum(mask),
    )
