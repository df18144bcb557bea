"""How the layers of a net start, by the name of whose habit it is."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from alexnet_jax.models.layers import Conv, Dense, Initializer, LocallyConnected, ModelSpec

# For each layer its start; "" for the layers not named. Biases of 1 give the ReLUs of conv2, conv4,
# conv5 and the hidden dense layers positive inputs early on (paper, section 5).
_ONES = ("conv2", "conv4", "conv5", "conv6", "fc6", "fc7")
_WIDE = ("conv3", "conv4", "conv5", "conv6")


def _gaussian(stds: Mapping[str, float], biases: Mapping[str, float]) -> dict[str, Initializer]:
    names = {"", *stds, *biases}
    return {
        name: Initializer(std=stds.get(name, stds[""]), bias=biases.get(name, 0.0))
        for name in names
    }


_CAFFE_STDS = {"": 0.01, "fc6": 0.005, "fc7": 0.005}

INITIALIZERS: Mapping[str, Mapping[str, Initializer]] = {
    # the authors' configuration 145; the text has std 0.01 everywhere
    "source": _gaussian({"": 0.01} | dict.fromkeys(_WIDE, 0.03), dict.fromkeys(_ONES, 1.0)),
    "text": _gaussian({"": 0.01}, dict.fromkeys(_ONES, 1.0)),
    # cuda-convnet2's net for one GPU starts every class improbable
    "one_tower": _gaussian(
        {"": 0.01} | dict.fromkeys(_WIDE, 0.03), dict.fromkeys(_ONES, 1.0) | {"fc8": -7.0}
    ),
    # Caffe's bvlc_alexnet found biases of 1 to give a flat loss; its CaffeNet kept them
    "caffe": _gaussian(_CAFFE_STDS, dict.fromkeys(_ONES, 0.1)),
    "caffenet": _gaussian(_CAFFE_STDS, dict.fromkeys(_ONES, 1.0)),
    "torch": {"": Initializer("torch")},
    "kaiming": {"": Initializer("he_normal")},
    "xavier": {"": Initializer("xavier_uniform")},
}


def with_initializer(spec: ModelSpec, name: str) -> ModelSpec:
    """Returns the net with every layer of weights started as INITIALIZERS[name] says."""
    starts = INITIALIZERS[name]
    layers = tuple(
        dataclasses.replace(layer, init=starts.get(layer.name, starts[""]))
        if isinstance(layer, (Conv, LocallyConnected, Dense))
        else layer
        for layer in spec.layers
    )
    return dataclasses.replace(spec, layers=layers)


def draw_kernel(
    key: jax.Array, init: Initializer, shape: tuple[int, ...], fans: tuple[int, int]
) -> jax.Array:
    """Draws a kernel.

    Args:
      key: typed random key.
      init: how.
      shape: of the kernel.
      fans: inputs and outputs that one weight's unit has.
    """
    fan_in, fan_out = fans
    count = (math.prod(shape),)  # drawn in one dimension: it compiles in a fifth of the time
    if init.kernel in ("normal", "he_normal"):
        std = init.std if init.kernel == "normal" else math.sqrt(2 / fan_in)
        return (std * jax.random.normal(key, count)).reshape(shape)
    limits = {"torch": 1 / math.sqrt(fan_in), "xavier_uniform": math.sqrt(6 / (fan_in + fan_out))}
    limit = limits[init.kernel]
    return jax.random.uniform(key, count, minval=-limit, maxval=limit).reshape(shape)


def draw_bias(
    key: jax.Array, init: Initializer, shape: tuple[int, ...], fans: tuple[int, int]
) -> jax.Array:
    """Draws a bias: constant, or uniform as PyTorch's; see `draw_kernel`."""
    if init.kernel == "torch":
        return draw_kernel(key, init, shape, fans)
    return jnp.full(shape, init.bias, float)  # the type named, lest a sum take that of its peer
