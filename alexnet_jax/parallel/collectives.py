"""Every collective of a step: how the parts of a net meet, and the sums over the batch."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from alexnet_jax.models import AlexNet, Towers, layers
from alexnet_jax.parallel.mesh import Layout

Tree = TypeVar("Tree")


def sharded_over(axis: str, count: int, batch_axis: str | None) -> Towers:
    """Returns towers whose features lie along a mesh axis, for use inside `jax.shard_map`."""

    def halo(x: jax.Array, before: int, after: int) -> jax.Array:
        # a tower that nobody sends to gets zeros, as beyond the first and last channel
        up = [(tower, tower + 1) for tower in range(count - 1)]
        down = [(tower + 1, tower) for tower in range(count - 1)]
        left = lax.ppermute(x[..., x.shape[-1] - before :], axis, up)
        right = lax.ppermute(x[..., :after], axis, down)
        return jnp.concatenate([left, x, right], axis=-1)

    def meet(x: jax.Array) -> jax.Array:
        # Gathered along the last axis itself, XLA's CPU backend lays out the pools and norms around
        # it features first, where they are slow: 10 % of the paper's step.
        return jnp.concatenate(jnp.unstack(lax.all_gather(x, axis)), axis=-1)

    return Towers(
        count,
        meet=meet,
        halo=halo,
        index=lambda: lax.axis_index(axis),
        batch_axis=batch_axis,
    )


def towers_on(layout: Layout) -> Towers:
    """Returns how a net's layers lie on the devices, for use inside `jax.shard_map`."""
    shape = layout.mesh.shape
    if layout.strategy == "hybrid":
        count = shape["data"]

        def own(x: jax.Array) -> jax.Array:
            rows = x.shape[0] // count
            return lax.dynamic_slice_in_dim(x, lax.axis_index("data") * rows, rows)

        return Towers(
            batch_axis="data",
            dense=sharded_over("data", count, batch_axis=None),
            gather=lambda x: lax.all_gather(x, "data", axis=0, tiled=True),
            own=own,
        )
    if layout.strategy == "tower":
        return sharded_over("tower", shape["tower"], batch_axis="data")
    return Towers(batch_axis="data")


def sum_over_batch(tree: Tree) -> Tree:
    """Adds up scalars over each device's part of the batch; the towers, which agree, are averaged.

    One collective for all of them, so that whatever needs one of the sums waits for all.
    """
    scalars, structure = jax.tree.flatten(tree)
    sums = lax.pmean(lax.psum(jnp.stack(scalars), "data"), "tower")
    added = [total.astype(scalar.dtype) for total, scalar in zip(sums, scalars, strict=True)]
    return jax.tree.unflatten(structure, added)


def split_batch(batch: Tree, layout: Layout, parts: int) -> tuple[Tree, jax.Array]:
    """Returns (parts, ...) of a batch, each with its share of every device's, and the whole count.

    Args:
      batch: a `Batch`, divided over `data`.
      layout: the devices.
      parts: a divisor of the examples a device has.
    """

    def local(batch: Any) -> tuple[Any, jax.Array]:
        rows = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)
        return rows, lax.psum(jnp.sum(batch.mask), "data")

    return jax.shard_map(
        local, mesh=layout.mesh, in_specs=P("data"), out_specs=(P(None, "data"), P())
    )(batch)


def mark_varying(params: Tree, specs: Tree) -> Tree:
    """Marks parameters as differing along `data`, but for those that are divided over it.

    So gradients are summed over the devices here, once, and not at each use of a parameter.
    """
    return jax.tree.map(
        lambda x, spec: x if "data" in spec else lax.pcast(x, "data", to="varying"), params, specs
    )


Forward = Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, Any]]


def make_forward(model: AlexNet, layout: Layout) -> Forward:
    """Returns (variables, images, dropout keys) -> (logits, batch statistics), in training.

    It is called inside `jax.shard_map` with this device's part of the batch.
    """
    if layout.strategy == "stage":
        return _staged(model, layout)
    local = model.clone(towers=towers_on(layout))

    def forward(variables: Any, images: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        logits: Any
        logits, updated = local.apply(
            variables, images, train=True, dropout_keys=keys, mutable=["batch_stats"]
        )
        return logits, updated.get("batch_stats", {})

    return forward


def _staged(model: AlexNet, layout: Layout) -> Forward:
    """Two stages along `tower`: at each tick one has the next micro-batch, the other the last.

    The first stage is idle at the last tick and the second at the first.
    """
    rows, micro_batches = model.spec.layers, layout.micro_batches
    first_dense = next(at for at, row in enumerate(rows) if isinstance(row, layers.Dense))
    features, head = model.clone(span=(0, first_dense)), model.clone(span=(first_dense, None))

    def forward(variables: Any, images: jax.Array, keys: jax.Array) -> tuple[jax.Array, Any]:
        # Marked as differing here, so that gradients are summed once and not inside a branch.
        params = lax.pcast(variables["params"], "tower", to="varying")
        images = lax.pcast(images, "tower", to="varying")
        size = images.shape[0] // micro_batches

        def run(stage: AlexNet, x: jax.Array, part: jax.Array | int) -> jax.Array:
            masks = lax.dynamic_slice_in_dim(keys, part * size, size)
            logits: Any = stage.apply({"params": params}, x, train=True, dropout_keys=masks)
            return logits

        def run_features(part: jax.Array | int) -> jax.Array:
            return run(features, lax.dynamic_slice_in_dim(images, part * size, size), part)

        first = jax.eval_shape(lambda: run_features(0))
        last = jax.eval_shape(lambda: run(head, jnp.zeros_like(first), 0))

        def tick(received: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
            branches = (
                lambda: (run_features(now), _varying_zeros(last)),
                lambda: (_varying_zeros(first), run(head, received, now - 1)),
                lambda: (_varying_zeros(first), _varying_zeros(last)),
            )
            stage = lax.axis_index("tower")
            busy = jnp.where(stage == 0, now < micro_batches, now > 0)
            sent, logits = lax.switch(jnp.where(busy, stage, 2), branches)
            return lax.ppermute(sent, "tower", [(0, 1)]), logits

        ticks = jnp.arange(micro_batches + 1)
        _, logits = lax.scan(tick, _varying_zeros(first), ticks, unroll=layout.unrolled)
        logits = lax.psum(logits[1:].reshape(-1, *logits.shape[2:]), "tower")
        return logits, variables["batch_stats"]

    return forward


def _varying_zeros(shape: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns zeros marked as differing from device to device, as what they stand in for does."""
    return lax.pcast(jnp.zeros(shape.shape, shape.dtype), ("data", "tower"), to="varying")
