"""The one mesh ('data', 'tower'), and where each strategy lays arrays on it.

`data` divides the batch, `tower` the net. The last axis of every kernel and bias is its output
features, and the halves of a grouped kernel's last axis are the towers, so one cut serves every
parameter. Arrays keep their global shapes; a checkpoint knows nothing of a mesh.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline import Batch, HostSlice


@dataclasses.dataclass(frozen=True)
class Strategy:
    """How a strategy uses the devices.

    Attributes:
      shape: number of devices -> those along (data, tower).
      divided: regular expression of the paths of the parameters whose last axis is divided; None:
        every device holds all of them.
      over: the mesh axis they are divided over.
    """

    shape: Callable[[int], tuple[int, int]]
    divided: str | None = None
    over: str = "tower"


STRATEGIES = {
    "single": Strategy(lambda n: (1, 1)),
    "data": Strategy(lambda n: (n, 1)),
    "tower": Strategy(lambda n: (n // 2, 2), divided=""),
    # convolutions by data; the dense layers divided over the same devices ("One weird trick")
    "hybrid": Strategy(lambda n: (n, 1), divided=r"\bfc\d+", over="data"),
    # `tower` is which stage: convolutions, then dense layers
    "stage": Strategy(lambda n: (n // 2, 2)),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A strategy on actual devices.

    Attributes:
      strategy: a key of STRATEGIES.
      mesh: of axes "data" and "tower".
      micro_batches: "stage" has its stages at work on so many parts of a batch in turn.
      unrolled: whether loops over parts of a batch are written out. XLA's analysis of what a
        program costs counts a loop's body once; programs to be counted have none.
    """

    strategy: str
    mesh: Mesh
    micro_batches: int = 1
    unrolled: bool = False


def make_layout(strategy: str, devices: int | None = None, micro_batches: int = 1) -> Layout:
    """Returns the layout of a strategy; that of "single" has a device of this process.

    Args:
      strategy: a key of STRATEGIES.
      devices: devices to use; None: all.
      micro_batches: of strategy "stage".
    """
    here = jax.local_devices() if strategy == "single" else jax.devices()
    chosen = here[:devices]
    shape = STRATEGIES[strategy].shape(len(chosen))
    mesh = jax.make_mesh(
        shape,
        ("data", "tower"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=chosen[: shape[0] * shape[1]],
    )
    return Layout(strategy, mesh, micro_batches)


def parameter_specs(params: Any, layout: Layout) -> Any:
    """Returns a PartitionSpec for each parameter or array of a parameter's shape, in any tree.

    An array whose last axis the devices do not divide, as a last layer of an odd number of
    classes, lies whole on every device.
    """
    strategy = STRATEGIES[layout.strategy]
    parts = layout.mesh.shape[strategy.over]

    def spec(path: Any, array: Any) -> P:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if strategy.divided is None or not re.search(strategy.divided, name):
            return P()
        if parts == 1 or not array.shape or array.shape[-1] % parts:
            return P()
        return P(*(None,) * (len(array.shape) - 1), strategy.over)

    return jax.tree_util.tree_map_with_path(spec, params)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns the tree of NamedShardings of a tree of PartitionSpecs."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P)
    )


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Returns shardings that lay every array of the tree whole on every device."""
    return jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)


def on_host(tree: Any, mesh: Mesh) -> Any:
    """Returns numpy arrays of a tree that may lie on the devices of several processes."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    gather = jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, P()))
    return jax.device_get(gather(tree))


def one_at_a_time(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled step that on CPU devices is done when it returns.

    They share one pool of threads. With several steps under way, all threads can come to wait in a
    collective for a device that has none left to run on: XLA ends the process then. GPUs and TPUs
    run ahead as usual.
    """
    if jax.default_backend() != "cpu":
        return step
    return lambda *arguments: jax.block_until_ready(step(*arguments))


def host_slice(mesh: Mesh) -> HostSlice:
    """Returns which rows of a global batch this process has devices for.

    Processes whose devices hold the same part of the batch, as two towers do, read the same rows.
    """
    rows = sorted(
        {
            place[0]
            for place, device in np.ndenumerate(mesh.devices)
            if device.process_index == jax.process_index()
        }
    )
    return HostSlice(rows[0] // len(rows), mesh.shape["data"] // len(rows))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Lays this host's part of a batch on its devices, as part of the global batch."""
    sharding = NamedSharding(mesh, P("data"))
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )
