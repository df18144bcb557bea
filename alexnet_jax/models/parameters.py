"""Names of parameters, as the patterns of a config match them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layers import ModelSpec


def parameter_paths(spec: ModelSpec, params: Any) -> Any:
    """Returns a tree like `params` that holds the path 'KIND/LAYER/PARAMETER' of each.

    KIND is the class of the layer's record: 'Conv/conv1/kernel', 'BatchNorm/conv1_norm/scale'.
    """
    kinds = {getattr(layer, "name", ""): type(layer).__name__ for layer in spec.layers}

    def path_of(path: Any, _: Any) -> str:
        layer, *rest = (str(part.key) for part in path)
        return "/".join([kinds[layer], layer, *rest])

    return jax.tree_util.tree_map_with_path(path_of, params)


@functools.cache
def list_parameter_paths(spec: ModelSpec) -> tuple[str, ...]:
    """Returns the path of each parameter of a model; nothing is computed."""
    size = (1, spec.input_size, spec.input_size, spec.channels)
    images = jax.ShapeDtypeStruct(size, jnp.float32)
    variables = jax.eval_shape(AlexNet(spec, num_classes=2).init, jax.random.key(0), images)
    return tuple(jax.tree.leaves(parameter_paths(spec, variables["params"])))
