"""Every collective of a step: the towers' meetings, and the sums over the batch."""

from typing import TypeVar

import jax
from jax import lax
from jax.sharding import Mesh

from alexnet_jax.models import Towers

Tree = TypeVar("Tree")


def towers_on(mesh: Mesh) -> Towers:
    """Returns how a net's towers lie on the mesh, for use inside `jax.shard_map`."""
    count = mesh.shape["tower"]
    if count == 1:
        return Towers(batch_axis="data")
    return Towers(
        count,
        batch_axis="data",
        meet=lambda x: lax.all_gather(x, "tower", axis=x.ndim - 1, tiled=True),
        index=lambda: lax.axis_index("tower"),
    )


def sum_over_batch(tree: Tree) -> Tree:
    """Adds up each device's part of the batch; the towers, which agree, are averaged."""
    return jax.tree.map(lambda x: lax.pmean(lax.psum(x, "data"), "tower"), tree)
