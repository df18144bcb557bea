"""How the weights and biases of a layer are initialized."""

import dataclasses
import math

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Initializer:
    """Distribution of a layer's weights, and the value of its biases.

    Attributes:
      kernel: "normal" with standard deviation `std`; "he_normal"; "xavier_uniform"; or "torch":
        uniform within 1 / sqrt(fan_in) for weights and biases, the default of PyTorch's layers.
      std: used by "normal".
      bias: value of every bias; not used by "torch".
    """

    kernel: str = "normal"
    std: float = 0.01
    bias: float = 0.0


# Biases of 1 give the ReLUs of conv2, conv4, conv5 and the hidden dense layers positive inputs in
# the early stages of training (paper, section 5).
_ONES = dict.fromkeys(("conv2", "conv4", "conv5", "conv6", "fc6", "fc7"), 1.0)
_WIDE_STDS = dict.fromkeys(("conv3", "conv4", "conv5", "conv6"), 0.03)
_CAFFE_STDS = {"fc6": 0.005, "fc7": 0.005}


def _gaussian(stds: dict[str, float], biases: dict[str, float]) -> dict[str, Initializer]:
    return {
        name: Initializer(std=stds.get(name, 0.01), bias=biases.get(name, 0.0))
        for name in ("", *stds, *biases)
    }


# Name of an initializer -> layer name -> its initializer; "" stands for all other layers.
INITIALIZERS: dict[str, dict[str, Initializer]] = {
    # the authors' configuration 145; the text has std 0.01 everywhere
    "source": _gaussian(_WIDE_STDS, _ONES),
    "text": _gaussian({}, _ONES),
    # cuda-convnet2's model for one GPU starts with every class improbable
    "one_tower": _gaussian(_WIDE_STDS, _ONES | {"fc8": -7.0}),
    # with biases of 1, the loss of Caffe's bvlc_alexnet did not decrease; its CaffeNet kept them
    "caffe": _gaussian(_CAFFE_STDS, dict.fromkeys(_ONES, 0.1)),
    "caffenet": _gaussian(_CAFFE_STDS, _ONES),
    "torch": {"": Initializer("torch")},
    "kaiming": {"": Initializer("he_normal")},
    "xavier": {"": Initializer("xavier_uniform")},
}


def draw_kernel(
    key: jax.Array, initializer: Initializer, shape: tuple[int, ...], fans: tuple[int, int]
) -> jax.Array:
    """Draws a kernel.

    Unlike those of `jax.nn.initializers`, the fans of a grouped convolution count its own group,
    and the draw is one-dimensional, which compiles in a fifth of the time.

    Args:
      key: typed random key.
      initializer: the distribution.
      shape: of the kernel.
      fans: (fan_in, fan_out) of one unit.
    """
    fan_in = fans[0]
    count = (math.prod(shape),)
    if initializer.kernel in ("normal", "he_normal"):
        std = initializer.std if initializer.kernel == "normal" else math.sqrt(2 / fan_in)
        return (std * jax.random.normal(key, count)).reshape(shape)
    limit = 1 / math.sqrt(fan_in) if initializer.kernel == "torch" else math.sqrt(6 / sum(fans))
    return jax.random.uniform(key, count, minval=-limit, maxval=limit).reshape(shape)


def draw_bias(
    key: jax.Array, initializer: Initializer, shape: tuple[int, ...], fans: tuple[int, int]
) -> jax.Array:
    """Draws a bias: constant, or uniform as PyTorch's; see `draw_kernel`."""
    if initializer.kernel == "torch":
        return draw_kernel(key, initializer, shape, fans)
    return jnp.full(shape, initializer.bias, float)  # a weak type would take that of its operand
