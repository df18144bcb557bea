"""The one mesh ('data', 'tower'), and how each strategy shards arrays over it.

`data` divides the batch, `tower` the model. The last axis of every kernel and bias is its output
features, and the halves of a grouped kernel's last axis are the towers, so one partition serves
every parameter. Arrays keep their global shapes; a checkpoint is independent of the mesh.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

from alexnet_jax.data.pipeline import Batch, HostSlice
from alexnet_jax.models import ModelSpec


class Strategy(NamedTuple):
    """How a strategy uses the devices.

    Attributes:
      mesh_shape: number of devices -> number along (data, tower).
      first_sharded: model -> index of the first layer whose parameters are sharded, over their last
        axis, as are those of all later layers; by default there is none.
      axis: the mesh axis over which they are sharded.
    """

    mesh_shape: Callable[[int], tuple[int, int]]
    first_sharded: Callable[[ModelSpec], int] = lambda spec: len(spec.layers)
    axis: str = "tower"


STRATEGIES = {
    "single": Strategy(lambda n: (1, 1)),
    "data": Strategy(lambda n: (n, 1)),
    "tower": Strategy(lambda n: (n // 2, 2), first_sharded=lambda spec: 0),
    # convolutions by data, dense layers by features over the same devices ("One weird trick")
    "hybrid": Strategy(lambda n: (n, 1), first_sharded=lambda spec: spec.first_dense, axis="data"),
    # `tower` is the stage: convolutions, then dense layers
    "stage": Strategy(lambda n: (n // 2, 2)),
}


class Layout(NamedTuple):
    """A strategy on actual devices.

    Attributes:
      strategy: a key of STRATEGIES.
      mesh: of axes "data" and "tower".
      micro_batches: strategy "stage": parts of a batch that pass through the stages in turn.
      unrolled: whether loops over parts of a batch are written out. XLA's cost analysis counts the
        body of a loop once, so programs to be counted have no loops.
    """

    strategy: str
    mesh: Mesh
    micro_batches: int = 1
    unrolled: bool = False


def make_layout(strategy: str, devices: int | None = None, micro_batches: int = 1) -> Layout:
    """Returns the layout of a strategy; that of "single" uses a device of this process.

    Args:
      strategy: a key of STRATEGIES.
      devices: number of devices to use; None: all.
      micro_batches: see `Layout`.
    """
    available = jax.local_devices() if strategy == "single" else jax.devices()
    shape = STRATEGIES[strategy].mesh_shape(len(available[:devices]))
    chosen = available[: math.prod(shape)]
    mesh = jax.make_mesh(shape, ("data", "tower"), 2 * (AxisType.Auto,), devices=chosen)
    return Layout(strategy, mesh, micro_batches)


def parameter_specs(tree: Any, spec: ModelSpec, layout: Layout) -> Any:
    """Returns a PartitionSpec for each array of a tree, by the parameter that it belongs to.

    An array whose last axis the devices do not divide, as that of a last layer with an odd number
    of classes, is replicated.

    Args:
      tree: parameters, or arrays of their shapes and names at any depth, as an optimizer's state.
      spec: names the layers.
      layout: the devices and the strategy.
    """
    strategy = STRATEGIES[layout.strategy]
    parts = layout.mesh.shape[strategy.axis]
    layers = spec.layers[strategy.first_sharded(spec) :] if parts > 1 else ()
    sharded = {layer.name for layer in layers if layer.name}

    def partition(path: Any, array: Any) -> P:
        names = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if sharded.isdisjoint(names) or not array.shape or array.shape[-1] % parts:
            return P()
        return P(*(None,) * (len(array.shape) - 1), strategy.axis)

    return jax.tree_util.tree_map_with_path(partition, tree)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns the tree of NamedShardings of a tree of PartitionSpecs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def put_model(variables: Any, statistics: Any, spec: ModelSpec, layout: Layout) -> tuple[Any, Any]:
    """Puts variables on the devices as their layout shards them, and statistics on each.

    Args:
      variables: Flax's, {"params": ..., "batch_stats": ...}.
      statistics: the training split's.
      spec: names the layers.
      layout: the devices and the strategy.
    """
    variables, statistics = jax.device_get((variables, statistics))
    specs = parameter_specs(variables, spec, layout)
    return (
        jax.device_put(variables, shardings(specs, layout.mesh)),
        jax.device_put(statistics, NamedSharding(layout.mesh, P())),
    )


def on_host(tree: Any, mesh: Mesh) -> Any:
    """Returns numpy arrays of a tree that may be sharded over several processes."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    gather = jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, P()))
    return jax.device_get(gather(tree))


def one_at_a_time(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled step that is complete when it returns, on CPU devices.

    They share one pool of threads. With several steps in progress, all threads can end up waiting
    in a collective for a device that has no thread left to run on, and XLA ends the process. GPUs
    and TPUs run ahead as usual.
    """
    if jax.default_backend() != "cpu":
        return step
    return lambda *arguments: jax.block_until_ready(step(*arguments))


def host_slice(mesh: Mesh) -> HostSlice:
    """Returns which rows of a global batch belong to the devices of this process.

    Processes whose devices share a part of the batch, as two towers do, read the same rows.
    """
    here = jax.process_index()
    is_here = [any(device.process_index == here for device in row) for row in mesh.devices]
    return HostSlice(is_here.index(True) // sum(is_here), len(is_here) // sum(is_here))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Puts this host's part of a batch on its devices, as part of the global batch."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, P("data")), batch)
