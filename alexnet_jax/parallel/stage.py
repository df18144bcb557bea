"""Strategy "stage": convolutions on one device, dense layers on another, in micro-batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from alexnet_jax.models import AlexNet
from alexnet_jax.parallel.mesh import Layout

Forward = Callable[..., tuple[jax.Array, Any]]


def make_staged_forward(model: AlexNet, layout: Layout) -> Forward:
    """Returns the forward pass of two stages along `tower`, for use inside `jax.shard_map`.

    At each tick the first stage has the next micro-batch and the second the previous one. The first
    is idle at the last tick and the second at the first.

    Args:
      model: the model on one device.
      layout: the devices and the number of micro-batches.
    """
    first_dense, micro_batches = model.spec.first_dense, layout.micro_batches

    def forward(variables: Any, images: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        # Marked as varying here, so that gradients are summed once and not inside a branch.
        params = lax.pcast(variables["params"], "tower", to="varying")
        images = lax.pcast(images, "tower", to="varying")
        size = images.shape[0] // micro_batches

        def run(x: jax.Array, index: jax.Array, layers: slice) -> Any:
            part = lax.dynamic_slice_in_dim(keys, index * size, size)
            return model.apply({"params": params}, x, train=True, dropout_keys=part, layers=layers)

        def run_convolutions(index: jax.Array) -> jax.Array:
            part = lax.dynamic_slice_in_dim(images, index * size, size)
            return run(part, index, slice(first_dense))

        def run_dense(features: jax.Array, index: jax.Array) -> jax.Array:
            return run(features, index, slice(first_dense, None))

        no_features = _varying_zeros(run_convolutions, 0)
        no_logits = _varying_zeros(run_dense, no_features, 0)

        def tick(received: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            branches = (
                lambda: (run_convolutions(now), no_logits),
                lambda: (no_features, run_dense(received, now - 1)),
                lambda: (no_features, no_logits),
            )
            stage = lax.axis_index("tower")
            is_busy = jnp.where(stage == 0, now < micro_batches, now > 0)
            features, logits = lax.switch(jnp.where(is_busy, stage, 2), branches)
            return lax.ppermute(features, "tower", [(0, 1)]), logits

        ticks = jnp.arange(micro_batches + 1)
        _, logits = lax.scan(tick, no_features, ticks, unroll=layout.unrolled)
        logits = lax.psum(logits[1:].reshape(-1, *logits.shape[2:]), "tower")
        return logits, variables["batch_stats"]

    return forward


def _varying_zeros(function: Callable[..., jax.Array], *arguments: Any) -> jax.Array:
    """Returns zeros in the shape of a function's value, marked as varying over the devices."""
    shape = jax.eval_shape(function, *arguments)
    return lax.pcast(jnp.zeros(shape.shape, shape.dtype), ("data", "tower"), to="varying")
