"""The Flax module that runs any row of `variants.py`, whole or as one of its towers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax import ops
from alexnet_jax.models import variants


@dataclasses.dataclass(frozen=True)
class Towers:
    """How the towers of a net lie on devices; the default is all of them on one.

    Attributes:
      count: towers that run apart, each with 1/count of every layer's features.
      meet: joins the towers' features along the last axis: (..., c) -> (..., count * c).
      index: returns which tower this program is, 0 <= index < count.
    """

    count: int = 1
    meet: Callable[[jax.Array], jax.Array] = lambda x: x
    index: Callable[[], jax.Array | int] = lambda: 0


class _Weights(nn.Module):
    """A kernel, normal with the given std, and a constant bias."""

    shape: tuple[int, ...]
    std: float
    bias: float

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", self._normal, self.shape)
        bias = self.param("bias", nn.initializers.constant(self.bias), self.shape[-1:])
        return kernel, bias

    def _normal(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Drawn in one dimension: the same numbers as in four, compiled in a third of the time."""
        # Scaled before it is shaped, XLA rounds it alike on every mesh.
        return (self.std * jax.random.normal(key, (math.prod(shape),))).reshape(shape)


class AlexNet(nn.Module):
    """A net of the AlexNet family.

    Parameters lie at `conv1/kernel` (HWIO), `conv1/bias`, ..., `fc8/kernel` (inputs, outputs); the
    inputs of the first dense layer are the last map flattened in HWC order. Initialise with
    `towers` at its default; the other towers' programs apply slices of those parameters. What each
    named layer puts out, before a ReLU that follows it, is sown at `intermediates/conv1_output`.

    Attributes:
      network: the row to run.
      num_classes: outputs of the last layer.
      towers: how the towers lie on devices.
    """

    network: variants.Network
    num_classes: int
    towers: Towers = Towers()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        """Returns logits.

        Args:
          images: float (batch, height, width, channels), preprocessed.
          train: whether dropout drops.
          dropout_keys: (batch,) typed random keys, one for each example, so that a mask depends on
            the example alone and not on the devices or the batch it lies in. With None, they are
            split from Flax's `rngs={"dropout": key}`.

        Returns:
          (batch, num_classes) float logits.
        """
        if train and dropout_keys is None:
            dropout_keys = jax.random.split(self.make_rng("dropout"), images.shape[0])
        x, is_split = images, False
        for position, layer in enumerate(self.network.layers):
            match layer:
                case variants.Conv():
                    x, is_split = self._conv(layer, x, is_split)
                case variants.Dense():
                    x, is_split = self._dense(layer, x, is_split)
                case variants.ResponseNorm():
                    groups = layer.groups // self.towers.count
                    x = ops.local_response_norm(x, layer.size, layer.k, layer.alpha, groups=groups)
                case variants.SpatialNorm():
                    x = ops.spatial_response_norm(x, layer.size, layer.k, layer.alpha)
                case variants.MaxPool():
                    x = ops.max_pool(x, layer.window, layer.stride)
                case variants.Relu():
                    x = nn.relu(x)
                case variants.Dropout():
                    x = self._dropout(layer, x, position, dropout_keys if train else None)
            name = getattr(layer, "name", "")
            if name:
                self.sow("intermediates", f"{name}_output", x)  # `name` is its parameters'
        return self.towers.meet(x) if is_split else x

    def _conv(self, layer: variants.Conv, x: jax.Array, is_split: bool) -> tuple[jax.Array, bool]:
        """A grouped layer keeps to its tower; any other sees all maps, so the towers meet first."""
        if layer.groups == 1 and is_split:
            x = self.towers.meet(x)
        groups = max(layer.groups // self.towers.count, 1)
        shape = (layer.size, layer.size, x.shape[-1] // groups, self._share(layer.features))
        kernel, bias = _Weights(shape, layer.std, layer.bias, name=layer.name)()
        x = ops.convolution(x, kernel, stride=layer.stride, padding=layer.padding, groups=groups)
        return x + bias, self.towers.count > 1

    def _dense(self, layer: variants.Dense, x: jax.Array, is_split: bool) -> tuple[jax.Array, bool]:
        if is_split:
            x = self.towers.meet(x)
        x = x.reshape(x.shape[0], -1)
        features = layer.features or self.num_classes
        share = self._share(features)
        kernel, bias = _Weights((x.shape[-1], share), layer.std, layer.bias, name=layer.name)()
        return x @ kernel + bias, share < features

    def _dropout(
        self, layer: variants.Dropout, x: jax.Array, position: int, keys: jax.Array | None
    ) -> jax.Array:
        """Drops by a mask drawn at full width, of which a tower takes its own part."""
        keep = 1.0 - layer.rate
        if keys is None:
            return x * keep if layer.rescale == "test" else x
        width = x.shape[-1]
        full = (*x.shape[1:-1], width * self.towers.count)

        def draw(key: jax.Array) -> jax.Array:
            return jax.random.bernoulli(jax.random.fold_in(key, position), keep, full)

        mask = jax.lax.dynamic_slice_in_dim(
            jax.vmap(draw)(keys), self.towers.index() * width, width, axis=-1
        )
        kept = jnp.where(mask, x, jnp.zeros_like(x))
        return kept / keep if layer.rescale == "train" else kept

    def _share(self, features: int) -> int:
        """Features of this tower; a number that does not divide is not split."""
        return features // self.towers.count if features % self.towers.count == 0 else features


def create_model(name: str, num_classes: int = 1000, **overrides: Any) -> AlexNet:
    """Returns a net of the family.

    Args:
      name: a row of `variants.NETWORKS`.
      num_classes: outputs of the last layer.
      **overrides: fields of the row to replace, e.g. `input_size=227`.

    Raises:
      KeyError: there is no such row.
    """
    network = dataclasses.replace(variants.NETWORKS[name], **overrides)
    return AlexNet(network, num_classes)
