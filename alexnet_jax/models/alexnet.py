"""The Flax module that runs any row of `variants.py`, whole or as one of its towers."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax import ops
from alexnet_jax.models import layers
from alexnet_jax.models.initializers import draw_bias, draw_kernel

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "abs_tanh": lambda x: jnp.abs(jnp.tanh(x)),
}
POOLS = {"max": ops.max_pool, "average": ops.average_pool}


def _same(x: Any) -> Any:
    return x


@dataclasses.dataclass(frozen=True)
class Towers:
    """How a net lies on devices; the default is whole on one.

    Attributes:
      count: towers that run apart, each with 1/count of every layer's features.
      meet: joins the towers' features along the last axis: (..., c) -> (..., count * c).
      halo: (x, before, after) -> x with so many channels of the neighboring towers at its ends,
        zeros where there is none.
      index: returns which tower this program is, 0 <= index < count.
      batch_axis: name of the axis over which devices share a batch, for batch norm.
      dense: if the dense layers lie on the devices in another way than what comes before them,
        that way.
      gather: before those, joins an array's parts of the batch along the first axis.
      own: after them, returns this device's part of a gathered array again.
    """

    count: int = 1
    meet: Callable[[jax.Array], jax.Array] = _same
    halo: Callable[[jax.Array, int, int], jax.Array] = lambda x, before, after: x
    index: Callable[[], jax.Array | int] = lambda: 0
    batch_axis: str | None = None
    dense: "Towers | None" = None
    gather: Callable[[jax.Array], jax.Array] = _same
    own: Callable[[jax.Array], jax.Array] = _same

    def replicated_features(self) -> "Towers":
        """Returns the same for features that every device has all of."""
        return Towers(batch_axis=self.batch_axis)


class _Weights(nn.Module):
    """A kernel and a bias, each drawn as the layer's start says.

    The kernel is of the type to compute in. The bias is added before its sum is rounded to that, so
    that its gradient, a sum over all places, adds up in the type of the parameters.
    """

    kernel: tuple[int, ...]
    bias: tuple[int, ...]
    fans: tuple[int, int]
    start: layers.Initializer
    dtype: str | None

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", draw_kernel, self.start, self.kernel, self.fans)
        bias = self.param("bias", draw_bias, self.start, self.bias, self.fans)
        return kernel.astype(self.dtype) if self.dtype else kernel, bias


class AlexNet(nn.Module):
    """A net of the AlexNet family.

    Parameters lie at `conv1/kernel` (HWIO), `conv1/bias`, ..., `fc8/kernel` (inputs, outputs); the
    inputs of the first dense layer are the last map flattened in HWC order. Initialize with
    `towers` at its default; the other towers' programs apply slices of those parameters. What each
    named layer puts out, before an activation that follows it, is sown at
    `intermediates/conv1_output`.

    Attributes:
      spec: the row to run.
      num_classes: outputs of the last layer.
      towers: how the net lies on devices.
      span: the layers to run, as a slice of the row's: all, or a stage of them, which takes in what
        the stage before it puts out.
      dtype: type to compute in, such as "bfloat16"; None: that of the parameters. Parameters, batch
        statistics and logits are float32 at least.
    """

    spec: layers.ModelSpec
    num_classes: int
    towers: Towers = Towers()
    span: tuple[int, int | None] = (0, None)
    dtype: str | None = None

    @nn.compact
    def __call__(
        self,
        images: jax.Array,
        *,
        train: bool = False,
        dropout_keys: jax.Array | None = None,
        heat_map: bool = False,
    ) -> jax.Array:
        """Returns logits.

        Args:
          images: float (batch, height, width, channels), preprocessed.
          train: whether dropout drops and batch norm takes the batch's own statistics; the running
            ones are in the collection "batch_stats", which must be mutable then.
          dropout_keys: (batch,) typed random keys, one for each example, so that a mask depends on
            the example alone and not on the devices or the batch it lies in. With None, they are
            split from Flax's `rngs={"dropout": key}`.
          heat_map: of a net made fully convolutional, whether to return the logits at each place.

        Returns:
          (batch, num_classes) float logits, of a fully convolutional net their mean over all
          places; with `heat_map`, (batch, rows, columns, num_classes).
        """
        chosen = list(enumerate(self.spec.layers))[slice(*self.span)]
        drops = any(isinstance(layer, layers.Dropout) for _, layer in chosen)
        if train and drops and dropout_keys is None:
            dropout_keys = jax.random.split(self.make_rng("dropout"), images.shape[0])
        x = images.astype(self.dtype) if self.dtype else images
        towers, is_split = self.towers, False
        for position, layer in chosen:
            if isinstance(layer, layers.Dense) and towers.dense:
                x, dropout_keys = towers.gather(x), _gather_keys(towers, dropout_keys)
                towers = towers.dense
            held = towers if is_split else towers.replicated_features()
            match layer:
                case layers.Conv() | layers.LocallyConnected() | layers.Dense():
                    groups = getattr(layer, "groups", 1)
                    x = towers.meet(x) if is_split and groups == 1 else x
                    x, is_split = self._weigh(layer, x, towers)
                case layers.Dropout():
                    keys = dropout_keys if train else None
                    x = _drop(layer, x, position, keys, held)
                case _:
                    x = self._plain(layer, x, train, held)
            if name := getattr(layer, "name", ""):
                self.sow("intermediates", f"{name}_output", x)  # `name` is its parameters'
        x = self.towers.own(towers.meet(x) if is_split else x)
        if self.span[1] is not None:
            return x
        logits = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        return logits.mean((1, 2)) if logits.ndim == 4 and not heat_map else logits

    def _plain(self, layer: layers.Layer, x: jax.Array, train: bool, towers: Towers) -> jax.Array:
        """The layers without weights of ours, each on its tower's own features."""
        match layer:
            case layers.LocalResponseNorm():
                return _response_norm(layer, x, towers)
            case layers.WithinChannelResponseNorm():
                return ops.within_channel_response_norm(
                    x, layer.size, layer.k, layer.alpha, layer.beta
                )
            case layers.Pool():
                pool = POOLS[layer.kind]
                return pool(x, layer.window, layer.stride, ceil_mode=layer.ceil_mode)
            case layers.AdaptivePool():
                return ops.adaptive_average_pool(x, layer.output)
            case layers.BatchNorm():
                return nn.BatchNorm(
                    use_running_average=not train,
                    momentum=layer.momentum,
                    epsilon=layer.epsilon,
                    axis_name=towers.batch_axis if train else None,
                    dtype=self.dtype,
                    name=layer.name,
                )(x)
            case layers.Activation():
                return ACTIVATIONS[layer.kind](x)
        raise TypeError(f"{layer} is no layer")

    def _weigh(
        self,
        layer: layers.Conv | layers.LocallyConnected | layers.Dense,
        x: jax.Array,
        towers: Towers,
    ) -> tuple[jax.Array, bool]:
        """Runs a layer with weights; tells whether its features are this tower's only."""
        full = layer.features or self.num_classes
        features = full // towers.count if full % towers.count == 0 else full
        match layer:
            case layers.Conv():
                y = self._conv(layer, x, features, max(layer.groups // towers.count, 1))
            case layers.LocallyConnected():
                y = self._locally_connected(layer, x, features)
            case layers.Dense():
                y = self._dense(layer, x, features, max(layer.groups // towers.count, 1))
        return y, features < full

    def _conv(self, layer: layers.Conv, x: jax.Array, features: int, groups: int) -> jax.Array:
        size = layer.size
        shape = (size, size, x.shape[-1] // groups, features)
        fans = (size**2 * shape[2], size**2 * features // groups)
        kernel, bias = _Weights(shape, shape[-1:], fans, layer.init, self.dtype, name=layer.name)()
        padding = layers.padding_of(layer, x.shape[1], x.shape[2])
        y = ops.convolution(x, kernel, stride=layer.stride, padding=padding, groups=groups)
        return (y + bias).astype(x.dtype)

    def _locally_connected(
        self, layer: layers.LocallyConnected, x: jax.Array, features: int
    ) -> jax.Array:
        height, width, channels = x.shape[1:]
        inputs = layer.size**2 * channels
        shape, fans = (height, width, inputs, features), (inputs, layer.size**2 * features)
        kernel, bias = _Weights(
            shape, (height, width, features), fans, layer.init, self.dtype, name=layer.name
        )()
        return (ops.locally_connected(x, kernel, layer.size) + bias).astype(x.dtype)

    def _dense(self, layer: layers.Dense, x: jax.Array, features: int, groups: int) -> jax.Array:
        """A dense layer; with a window, at every place where the window fits."""
        side = layer.window if x.ndim == 4 and layer.window else None
        parts = jnp.split(x, groups, axis=-1)
        if side is None:
            parts = [part.reshape(part.shape[0], -1) for part in parts]
        inputs = parts[0].shape[-1] * (side or 1) ** 2
        kernel, bias = _Weights(
            (inputs, features),
            (features,),
            (inputs, features // groups),
            layer.init,
            self.dtype,
            name=layer.name,
        )()
        outputs = []
        for part, columns in zip(parts, jnp.split(kernel, groups, axis=-1), strict=True):
            if side is None:
                outputs.append(part @ columns)
            else:
                windowed = columns.reshape(side, side, -1, columns.shape[-1])
                outputs.append(ops.convolution(part, windowed, padding=0))
        return (jnp.concatenate(outputs, axis=-1) + bias).astype(x.dtype)


def _gather_keys(towers: Towers, keys: jax.Array | None) -> jax.Array | None:
    """Gathers typed random keys as the numbers they are made of."""
    if keys is None:
        return None
    return jax.random.wrap_key_data(
        towers.gather(jax.random.key_data(keys)), impl=jax.random.key_impl(keys)
    )


def _response_norm(layer: layers.LocalResponseNorm, x: jax.Array, towers: Towers) -> jax.Array:
    """Normalizes within towers; a norm that spans them sees its neighbors' channels too."""
    settings = (layer.size, layer.k, layer.alpha, layer.beta)
    if towers.count == 1 or layer.groups > 1:
        groups = layer.groups // towers.count
        return ops.local_response_norm(x, *settings, groups=groups)
    before, after, width = layer.size // 2, (layer.size - 1) // 2, x.shape[-1]
    seen = towers.halo(x, before, after)
    return ops.local_response_norm(seen, *settings)[..., before : before + width]


def _drop(
    layer: layers.Dropout, x: jax.Array, position: int, keys: jax.Array | None, towers: Towers
) -> jax.Array:
    """Drops by a mask drawn at full width, of which a tower takes its own part."""
    keep = 1.0 - layer.rate
    if keys is None:
        return x * keep if layer.rescale == "test" else x
    width = x.shape[-1]
    full = (*x.shape[1:-1], width * towers.count)

    def draw(key: jax.Array) -> jax.Array:
        flat = jax.random.bernoulli(jax.random.fold_in(key, position), keep, (math.prod(full),))
        return flat.reshape(full)

    mask = jax.lax.dynamic_slice_in_dim(
        jax.vmap(draw)(keys), towers.index() * width, width, axis=-1
    )
    kept = jnp.where(mask, x, jnp.zeros_like(x))
    return kept / keep if layer.rescale == "train" else kept
