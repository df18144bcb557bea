"""The outputs of single layers of a model, by name: for features, feature maps and retrieval."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.errors import InputError, did_you_mean
from alexnet_jax.models.alexnet import AlexNet
from alexnet_jax.models.layers import Activation, ModelSpec, ScaledNorm, WeightLayer


def layer_names(spec: ModelSpec) -> list[str]:
    """Returns the names of the layers whose outputs can be captured, in order."""
    return [layer.name for layer in spec.layers if layer.name]


def default_layer(spec: ModelSpec) -> str:
    """Returns the last layer with weights before the output layer: fc7 in the paper's models."""
    stop = spec.layers.index(spec.output_layer)
    weighted = (x.name for x in spec.layers[:stop] if isinstance(x, (WeightLayer, ScaledNorm)))
    return [spec.output_layer.name, *weighted][-1]


def stop_of(spec: ModelSpec, name: str) -> int:
    """Returns the number of layers up to a layer and the activation that directly follows it.

    So the features of fc7 are those after its ReLU, as Caffe's blob of that name, and those of the
    last layer are the logits.

    Raises:
      InputError: there is no such layer.
    """
    names = layer_names(spec)
    if name not in names:
        raise InputError(
            f"There is no layer {name!r}, only {', '.join(names)}.{did_you_mean(name, names)}"
        )
    stop = [layer.name for layer in spec.layers].index(name) + 1
    return stop + isinstance(spec.layers[min(stop, len(spec.layers) - 1)], Activation)


def activations(
    model: AlexNet, variables: Any, x: jax.Array, names: Sequence[str]
) -> dict[str, jax.Array]:
    """Returns the outputs of some layers, float32[batch, ...] each, in one pass; see `stop_of`.

    Args:
      model: the model on one device.
      variables: of the model.
      x: its input, `float[batch, height, width, channels]`.
      names: of the layers, in any order.

    Raises:
      InputError: there is no layer of a name.
    """
    stops = {name: stop_of(model.spec, name) for name in names}
    found, start = {}, 0
    for name, stop in sorted(stops.items(), key=lambda item: item[1]):
        x = model.apply(variables, x, layers=slice(start, stop))  # type: ignore[assignment]
        found[name], start = x.astype(jnp.float32), stop
    return found
