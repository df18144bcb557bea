"""How devices compute a step together: the forward pass of each strategy, and all collectives."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import PartitionSpec as P

from alexnet_jax.models import AlexNet, FeatureSharding
from alexnet_jax.parallel.mesh import Layout

Tree = TypeVar("Tree")
Forward = Callable[..., tuple[jax.Array, Any]]


def sharded_over(axis: str, count: int, batch_axis: str | None = None) -> FeatureSharding:
    """Returns the sharding of features over a mesh axis, for use inside `jax.shard_map`.

    Args:
      axis: mesh axis.
      count: its size.
      batch_axis: mesh axis over which devices share a batch.
    """

    def halo(x: jax.Array, before: int, after: int) -> jax.Array:
        # the first and the last device receive zeros, as there is no channel beyond theirs
        up = [(device, device + 1) for device in range(count - 1)]
        down = [(device + 1, device) for device in range(count - 1)]
        left = lax.ppermute(x[..., x.shape[-1] - before :], axis, up)
        right = lax.ppermute(x[..., :after], axis, down)
        return jnp.concatenate([left, x, right], axis=-1)

    def all_gather_features(x: jax.Array) -> jax.Array:
        # Gathered along the last axis itself, XLA's CPU backend lays out the pools and norms around
        # it features first, where they are slow: 10 % of the paper's step.
        return jnp.concatenate(jnp.unstack(lax.all_gather(x, axis)), axis=-1)

    return FeatureSharding(count, axis, batch_axis, all_gather_features, halo)


def sum_over_batch(tree: Tree) -> Tree:
    """Adds up scalars over the devices' parts of the batch; over the towers, which agree, averages.

    It is one collective for all of them, so that whatever needs one of the sums waits for all.
    """
    scalars, restore = ravel_pytree(tree)
    return restore(lax.pmean(lax.psum(scalars, "data"), "tower"))


def wait_for(log_probabilities: jax.Array, tree: Tree) -> Tree:
    """Returns a tree that is available only once some log-probabilities are.

    The collectives of a loop that computes them then finish before those that use the tree. XLA
    orders the collectives of a loop with others only if data flows from one to the other; otherwise
    devices could wait for each other in different ones. XLA removes an `optimization_barrier`.
    """
    never = jnp.any(log_probabilities > 1.0)  # logarithms of at most 1, which XLA does not know
    return jax.tree.map(lambda x: jnp.where(never, jnp.zeros_like(x), x), tree)


def split_batch(batch: Tree, layout: Layout, parts: int) -> tuple[Tree, jax.Array]:
    """Returns the parts of a batch along a new first axis, and the count of the whole batch.

    Args:
      batch: a `Batch`, sharded over `data`.
      layout: the devices.
      parts: their number, a divisor of the examples per device; each part has examples of every
        device.
    """

    def local(batch: Any) -> tuple[Any, jax.Array]:
        rows = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
        return rows, lax.psum(jnp.sum(batch.mask), "data")

    return jax.shard_map(
        local, mesh=layout.mesh, in_specs=P("data"), out_specs=(P(None, "data"), P())
    )(batch)


def mark_varying(params: Tree, specs: Tree) -> Tree:
    """Marks parameters as varying along `data`, except for those that are sharded over it.

    Then gradients are summed over the devices here, once, and not at each use of a parameter.
    """
    return jax.tree.map(
        lambda x, spec: x if "data" in spec else lax.pcast(x, "data", to="varying"), params, specs
    )


def make_forward(model: AlexNet, layout: Layout, *, train: bool = True) -> Forward:
    """Returns (variables, images, dropout keys) -> (logits, batch statistics).

    It is called inside `jax.shard_map` with this device's part of the batch.

    Args:
      model: the model on one device.
      layout: the devices and the strategy.
      train: whether dropout and batch norm act as in training. Otherwise the dropout keys are not
        used, and further keyword arguments are those of the model.
    """
    if layout.strategy == "stage" and train:
        return _make_staged_forward(model, layout)
    if layout.strategy == "hybrid":
        return _make_hybrid_forward(model, layout.mesh.shape["data"], train)
    if layout.strategy == "tower":
        sharding = sharded_over("tower", layout.mesh.shape["tower"], batch_axis="data")
    else:
        sharding = FeatureSharding(batch_axis_name="data")
    return functools.partial(_apply, model.clone(sharding=sharding), train)


def _apply(
    model: AlexNet, train: bool, variables: Any, x: jax.Array, keys: Any = None, **options: Any
) -> tuple[jax.Array, Any]:
    outputs: Any = model.apply(
        variables, x, train=train, dropout_keys=keys, mutable=["batch_stats"], **options
    )
    return outputs[0], outputs[1].get("batch_stats", {})


def _make_hybrid_forward(model: AlexNet, count: int, train: bool) -> Forward:
    """Convolutions on each device's part of the batch, then dense layers sharded over the devices.

    Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", section 3,
    scheme (a): the dense layers see the whole batch on every device.
    """
    first, rest = slice(model.spec.first_dense), slice(model.spec.first_dense, None)
    convolutions = model.clone(sharding=FeatureSharding(batch_axis_name="data"))
    dense = model.clone(sharding=sharded_over("data", count))
    all_gather_batch = functools.partial(lax.all_gather, axis_name="data", axis=0, tiled=True)

    def forward(
        variables: Any, images: jax.Array, keys: jax.Array | None = None, **options: Any
    ) -> tuple[jax.Array, Any]:
        x, batch_stats = _apply(convolutions, train, variables, images, keys, layers=first)
        if keys is not None:  # typed keys are gathered as the integers that they consist of
            data = all_gather_batch(jax.random.key_data(keys))
            keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))
        variables = {**variables, "batch_stats": batch_stats}
        x = all_gather_batch(x)
        logits, batch_stats = _apply(dense, train, variables, x, keys, layers=rest, **options)
        rows = images.shape[0]
        return lax.dynamic_slice_in_dim(logits, lax.axis_index("data") * rows, rows), batch_stats

    return forward


def _make_staged_forward(model: AlexNet, layout: Layout) -> Forward:
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
