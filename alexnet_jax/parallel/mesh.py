"""The one mesh ('data', 'tower') and the places of arrays on it.

`data` divides the batch, `tower` divides the net: the last axis of every kernel and bias is its
output features, and the halves of a grouped kernel's last axis are the towers, so the same cut
serves every parameter. Arrays keep their global shapes; a checkpoint knows nothing of a mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from alexnet_jax.data.pipeline import Batch

# devices along (data, tower) for n devices
SHAPES = {
    "single": lambda n: (1, 1),
    "data": lambda n: (n, 1),
    "tower": lambda n: (n // 2, 2),
}


def make_mesh(strategy: str, devices: int | None = None) -> Mesh:
    """Returns the mesh of a strategy.

    Args:
      strategy: a key of SHAPES.
      devices: devices to use; None: all.
    """
    chosen = jax.devices()[:devices]
    shape = SHAPES[strategy](len(chosen))
    return jax.make_mesh(
        shape,
        ("data", "tower"),
        axis_types=(AxisType.Auto, AxisType.Auto),
        devices=chosen[: shape[0] * shape[1]],
    )


def parameter_specs(params: Any, mesh: Mesh) -> Any:
    """Returns a PartitionSpec for each parameter or array of a parameter's shape.

    An array whose last axis the towers do not divide, as a last layer of an odd number of
    classes, lies whole on every device.
    """
    towers = mesh.shape["tower"]

    def spec(array: Any) -> P:
        if towers == 1 or not array.shape or array.shape[-1] % towers:
            return P()
        return P(*(None,) * (len(array.shape) - 1), "tower")

    return jax.tree.map(spec, params)


def shardings(specs: Any, mesh: Mesh) -> Any:
    """Returns the tree of NamedShardings of a tree of PartitionSpecs."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda leaf: isinstance(leaf, P)
    )


def replicated(tree: Any, mesh: Mesh) -> Any:
    """Returns shardings that lay every array of the tree whole on every device."""
    return jax.tree.map(lambda _: NamedSharding(mesh, P()), tree)


def one_at_a_time(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a compiled step that on CPU devices is done when it returns.

    They share one pool of threads. With several steps under way, all threads can come to wait in a
    collective for a device that has none left to run on: XLA ends the process then. GPUs and TPUs
    run ahead as usual.
    """
    if jax.default_backend() != "cpu":
        return step
    return lambda *arguments: jax.block_until_ready(step(*arguments))


def put_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Lays this host's part of a batch on its devices, as part of the global batch."""
    sharding = NamedSharding(mesh, P("data"))
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )
