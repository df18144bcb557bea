"""The kinds of layers: fields, output shape, parameters and forward pass of each in one class.

`variants.py` lists the layers of each model, `alexnet.py` runs them and `summary.py` counts them;
none of these depends on the kinds. A new kind of layer is a class here, with a row of
`LAYER_FIELDS` for each new field.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, TypeVar, dataclass_transform

import flax.linen as nn
import jax
import jax.numpy as jnp

from alexnet_jax import ops
from alexnet_jax.models.initializers import Initializer, draw_bias, draw_kernel
from alexnet_jax.schema import Key, choice, flag, integer, number

Shape = tuple[int, ...]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": nn.sigmoid,
    "abs_tanh": lambda x: jnp.abs(jnp.tanh(x)),
}
POOLS = {"max": ops.max_pool, "average": ops.average_pool}

NUM_CLASSES = 0  # as the features of a last layer: as many as there are classes

MAX_INPUT_SIZE = 2**13  # pixels

# The fields that a config can set. The upper bounds are far above any use; they keep arithmetic on
# shapes and unrolled loops cheap.
LAYER_FIELDS: Mapping[str, Key] = {
    "features": integer(None, "Number of output channels or units.", 1, 2**16),
    "kernel_size": integer(None, "Height and width of the kernel, in pixels.", 1, 256),
    "stride": integer(None, "Pixels between neighboring windows.", 1, 256),
    "padding": integer(None, "Zeros on each side of the input, in pixels.", 0, 256),
    "ceil_mode": flag(None, "Whether a last window may extend past the right and bottom edge."),
    "groups": integer(None, "Groups of channels that are computed separately.", 1, 256),
    "input_spatial_size": integer(None, "Size of a dense layer's input map; 0: flatten.", 0, 256),
    "size": integer(None, "Window of a response norm, in channels or pixels.", 1, 2**15),
    "k": number(None, "Constant of a response norm.", 0, 1e6),
    "alpha": number(None, "Factor of a response norm on the plain sum of squares.", 0, 1e6),
    "beta": number(None, "Exponent of a response norm.", 0, 100),
    "epsilon": number(None, "Added to the variance in a norm.", 0, 1),
    "momentum": number(None, "Share of batch norm's running statistics that is kept.", 0, 1),
    "kind": choice(None, "Kind of pooling.", POOLS),
    "window": integer(None, "Height and width of a pooling window, in pixels.", 1, 64),
    "output": integer(None, "Height and width of the result of adaptive pooling.", 1, 256),
    "rate": number(None, "Probability of dropping an activation.", 0, 0.99),
    "inverted": flag(None, "Whether dropout rescales in training, not at test time."),
    # of the layer's initializer
    "std": number(None, "Standard deviation of the initial weights.", 0, 1e3),
    "bias": number(None, "Value of the initial biases.", -1e3, 1e3),
}


class TooSmallError(ValueError):
    """The input is too small for a layer's window."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Record:
    """A base class whose subclasses are frozen dataclasses, without a decorator."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True)(cls)


class FeatureSharding(Record):
    """How the features of a layer are split over devices; the default is one device.

    Attributes:
      count: number of parts; each device has 1 / count of every layer's features.
      axis_name: mesh axis of the parts.
      batch_axis_name: mesh axis over which devices share a batch, for batch norm.
      all_gather_features: joins the parts along the last axis: (..., c) -> (..., count * c).
      halo: (x, before, after) -> x with that many channels of the neighboring parts at its ends,
        zeros where there is no neighbor.
    """

    count: int = 1
    axis_name: str | None = None
    batch_axis_name: str | None = None
    all_gather_features: Callable[[jax.Array], jax.Array] = lambda x: x
    halo: Callable[[jax.Array, int, int], jax.Array] = lambda x, before, after: x


class Context(Record):
    """What a layer needs apart from its input when it is applied.

    Attributes:
      index: of the layer in its model; its dropout masks depend on it.
      train: whether dropout drops and batch norm uses the statistics of the batch.
      dropout_keys: typed random keys, one per example, or None.
      dtype: type to compute in; None: that of the parameters.
      sharding: how the devices share features.
      count: number of devices that the input's features are split over; 1: it has all of them.
    """

    index: int
    train: bool
    dropout_keys: jax.Array | None
    dtype: str | None
    sharding: FeatureSharding
    count: int


class Layer(Record):
    """One layer of a model. Shapes are those of one example, with all features.

    Attributes:
      name: of its parameters and its output; "" if it has neither.
      groups: groups of channels that are computed separately.
      kernel_size, stride: of the windows of a convolution, in pixels.
      mixes_examples: whether each output depends on the other examples of a batch, in training.
    """

    name: str
    groups = kernel_size = stride = 1
    mixes_examples = False

    def receptive_window(self) -> tuple[float, int]:
        """Returns (size, stride) in pixels of what one output sees; inf: the whole input."""
        return self.kernel_size, self.stride

    def mixes_features(self) -> bool:
        """Returns whether each output depends on all input features."""
        return False

    def output_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the output.

        Raises:
          TooSmallError: the input is smaller than a window.
          ValueError: the fields do not fit the input.
        """
        self.check_groups(inputs=shape[-1])
        return shape

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        """Returns the shape of each parameter for an input of a given shape."""
        return {}

    def sharding_error(self, features: int, count: int) -> str:
        """Returns why `count` devices cannot share this layer's features, or "".

        Args:
          features: of the input.
          count: number of devices.
        """
        if self.groups > 1 and self.groups % count:
            return f"{count} devices cannot share the {self.groups} groups of {self.name}."
        return ""

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        """Returns the output for `float[batch, ..., features]`; called inside a Flax module."""
        raise NotImplementedError

    def check_groups(self, **channels: int) -> None:
        """Raises ValueError unless the groups divide all the named numbers of channels."""
        for what, count in channels.items():
            if count % self.groups:
                error = f"{count} {what} do not divide into {self.groups} groups."
                raise ValueError(f"layers.{self.name}: {error}")


def _num_windows(name: str, side: int, size: int, stride: int = 1, ceil_mode: bool = False) -> int:
    """Returns how many windows of a layer fit along a side."""
    count = ops.pooling.num_windows(side, size, stride, ceil_mode)
    if count < 1:
        raise TooSmallError(f"layers.{name}: window {size} is larger than its input, {side}.")
    return count


# ---- Layers with weights


class _Weighted(nn.Module):
    """Holds the kernel and bias of a layer, and applies it.

    The kernel has the type to compute in. The bias is added before the sum is rounded to that type,
    so that its gradient, a sum over all positions, is accumulated in the type of the parameters.
    """

    layer: "WeightLayer"

    @nn.compact
    def __call__(self, x: jax.Array, dtype: str | None) -> jax.Array:
        layer = self.layer
        kernel, bias = layer.parameters(x.shape[1:]).values()
        fan_in = math.prod(kernel) // math.prod(bias)
        fans = (fan_in, layer.kernel_size**2 * layer.features // layer.groups)
        weights = self.param("kernel", draw_kernel, layer.initializer, kernel, fans)
        biases = self.param("bias", draw_bias, layer.initializer, bias, fans)
        weights = weights.astype(dtype) if dtype else weights
        return (layer.compute(x, weights) + biases).astype(x.dtype)


class WeightLayer(Layer):
    """A layer with a kernel and a bias; the last axis of both is the output features."""

    features: int
    initializer: Initializer = dataclasses.field(default=Initializer(), kw_only=True)

    def mixes_features(self) -> bool:
        return self.groups == 1

    def compute(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Returns the output without the bias."""
        raise NotImplementedError

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        """Applies this device's part of the layer, or all of it if its features do not divide."""
        count = context.sharding.count
        changes: dict[str, Any] = {"groups": self.groups // count} if self.groups > 1 else {}
        if self.features % count == 0:
            changes["features"] = self.features // count
        part = dataclasses.replace(self, **changes)
        return _Weighted(part, name=self.name)(x, context.dtype)


class Conv(WeightLayer):
    """A convolution with bias.

    Attributes:
      features: number of output channels.
      kernel_size: height and width of the kernel, in pixels.
      stride: pixels between neighboring windows.
      padding: zeros on each side of the input, in pixels.
      ceil_mode: whether a last window may extend past the right and bottom edge, where zeros are
        added: cuda-convnet's 1 + ceil((in + 2 padding - kernel_size) / stride) outputs.
      groups: groups of channels; the two towers of the paper are two groups.
      initializer: of kernel and bias.
    """

    kernel_size: int = dataclasses.field()  # required
    stride: int = 1
    padding: int = 0
    ceil_mode: bool = False
    groups: int = 1

    def pads(self, side: int) -> tuple[int, int]:
        """Returns the zeros before and after a side of the input, given its length."""
        excess = (self.kernel_size - side - 2 * self.padding) % self.stride
        return self.padding, self.padding + (excess if self.ceil_mode else 0)

    def output_shape(self, shape: Shape) -> Shape:
        self.check_groups(inputs=shape[-1], features=self.features)
        sides = (side + sum(self.pads(side)) for side in shape[:2])
        window = self.kernel_size, self.stride
        return *(_num_windows(self.name, side, *window) for side in sides), self.features

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        size, inputs = self.kernel_size, shape[-1] // self.groups
        return {"kernel": (size, size, inputs, self.features), "bias": (self.features,)}

    def sharding_error(self, features: int, count: int) -> str:
        if self.features % count:
            return f"{count} devices cannot share the {self.features} features of {self.name}."
        return super().sharding_error(features, count)

    def compute(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        padding = self.pads(x.shape[1]), self.pads(x.shape[2])
        return ops.convolution(x, kernel, stride=self.stride, padding=padding, groups=self.groups)


class LocallyConnected(WeightLayer):
    """A convolution of odd size and stride 1 with its own weights and biases at each position."""

    kernel_size: int = dataclasses.field()  # required

    def output_shape(self, shape: Shape) -> Shape:
        if self.kernel_size % 2 == 0:
            raise ValueError(f"layers.{self.name}: kernel_size {self.kernel_size} is not odd.")
        return *shape[:2], self.features

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        inputs = self.kernel_size**2 * shape[-1]
        bias = (*shape[:2], self.features)
        return {"kernel": (*shape[:2], inputs, self.features), "bias": bias}

    def compute(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return ops.locally_connected(x, kernel, self.kernel_size)


class Dense(WeightLayer):
    """A fully connected layer.

    Attributes:
      features: number of outputs; NUM_CLASSES: as many as there are classes.
      groups: groups of channels, as of `Conv`.
      input_spatial_size: 0: the input is flattened in (row, column, channel) order. Otherwise the
        height and width of the map it was made for: it is applied at each position of a larger map,
        as a convolution with the same parameters.
      initializer: of kernel and bias.
    """

    groups: int = 1
    input_spatial_size: int = 0

    def _size(self, shape: Shape) -> int:
        """Returns the kernel size as a convolution, or 0."""
        return self.input_spatial_size if len(shape) == 3 else 0

    def receptive_window(self) -> tuple[float, int]:
        return self.input_spatial_size or math.inf, 1

    def output_shape(self, shape: Shape) -> Shape:
        self.check_groups(inputs=shape[-1], features=self.features)
        size = self._size(shape)
        sides = shape[:2] if size else ()
        return *(_num_windows(self.name, side, size) for side in sides), self.features

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        size = self._size(shape)
        inputs = size**2 * shape[-1] if size else math.prod(shape)
        return {"kernel": (inputs // self.groups, self.features), "bias": (self.features,)}

    def compute(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if size := self._size(x.shape[1:]):
            kernel = kernel.reshape(size, size, -1, self.features)
            return ops.convolution(x, kernel, padding=0, groups=self.groups)
        parts, kernels = (jnp.split(array, self.groups, -1) for array in (x, kernel))
        pairs = zip(parts, kernels, strict=True)
        return jnp.concatenate([part.reshape(part.shape[0], -1) @ w for part, w in pairs], -1)


# ---- Norms


class Norm(Layer):
    """A normalization."""


class ResponseNorm(Norm):
    """A normalization by the squares of neighboring values.

    Attributes:
      size: length of the window, in channels or pixels.
      k, alpha, beta: b = a / (k + alpha * sum of a**2 over the window) ** beta.
    """

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75


class LocalResponseNorm(ResponseNorm):
    """Local response normalization over neighboring channels, in each of `groups` groups.

    Attributes:
      groups: groups of channels that are normalized separately, such as the towers.
    """

    groups: int = 1

    def sharding_error(self, features: int, count: int) -> str:
        if self.groups == 1 and self.size // 2 > features // count:
            reached = f"the {features // count} channels of the neighboring device"
            return f"the window of {self.name}, {self.size} channels, reaches past {reached}."
        return super().sharding_error(features, count)

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        constants = (self.size, self.k, self.alpha, self.beta)
        if context.count == 1 or self.groups > 1:
            groups = self.groups // context.count
            return ops.local_response_norm(x, *constants, groups=groups)
        before, after, width = self.size // 2, (self.size - 1) // 2, x.shape[-1]
        wide = context.sharding.halo(x, before, after)
        return ops.local_response_norm(wide, *constants)[..., before : before + width]


class WithinChannelResponseNorm(ResponseNorm):
    """Response normalization within a channel, over a size x size neighborhood."""

    k: float = 1.0
    alpha: float = 1e-3 / 25

    def receptive_window(self) -> tuple[float, int]:
        return self.size, 1

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        return ops.within_channel_response_norm(x, self.size, self.k, self.alpha, self.beta)


class ScaledNorm(Norm):
    """A normalization by mean and variance, with a learned scale and bias of each feature."""

    epsilon: float = 1e-5

    def parameters(self, shape: Shape) -> dict[str, Shape]:
        return {"scale": shape[-1:], "bias": shape[-1:]}

    def module(self, context: Context, **options: Any) -> Callable[[jax.Array], jax.Array]:
        """Returns the Flax module, given the options that all kinds have."""
        raise NotImplementedError

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        return self.module(context, epsilon=self.epsilon, dtype=context.dtype, name=self.name)(x)


class BatchNorm(ScaledNorm):
    """Batch normalization (Ioffe & Szegedy 2015), over the batch of all devices.

    Attributes:
      momentum: share of the running statistics that is kept in each step.
    """

    momentum: float = 0.9
    mixes_examples = True

    def module(self, context: Context, **options: Any) -> Callable[[jax.Array], jax.Array]:
        axis = context.sharding.batch_axis_name if context.train else None
        return nn.BatchNorm(not context.train, momentum=self.momentum, axis_name=axis, **options)


class LayerNorm(ScaledNorm):
    """Layer normalization (Ba et al. 2016) over the features, at each position of a map."""

    def module(self, context: Context, **options: Any) -> Callable[[jax.Array], jax.Array]:
        axis = context.sharding.axis_name if context.count > 1 else None
        return nn.LayerNorm(axis_name=axis, **options)


class GroupNorm(ScaledNorm):
    """Group normalization (Wu & He 2018), over all positions of each group of features."""

    groups: int = 32

    def module(self, context: Context, **options: Any) -> Callable[[jax.Array], jax.Array]:
        axis = context.sharding.axis_name if context.count > self.groups else None
        return nn.GroupNorm(max(self.groups // context.count, 1), axis_name=axis, **options)


# ---- Pooling, activations, dropout


class Pool(Layer):
    """Pooling by "max" or "average"; windows overlap where stride < window."""

    kind: str = "max"
    window: int = 3
    stride: int = 2
    ceil_mode: bool = False

    def receptive_window(self) -> tuple[float, int]:
        return self.window, self.stride

    def output_shape(self, shape: Shape) -> Shape:
        window = self.window, self.stride, self.ceil_mode
        return *(_num_windows(self.name, side, *window) for side in shape[:2]), shape[-1]

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        return POOLS[self.kind](x, self.window, self.stride, ceil_mode=self.ceil_mode)


class AdaptivePool(Layer):
    """Average pooling to output x output positions, whatever the size of the input."""

    output: int = 6

    def receptive_window(self) -> tuple[float, int]:
        return math.inf, 1

    def output_shape(self, shape: Shape) -> Shape:
        return self.output, self.output, shape[-1]

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        return ops.adaptive_average_pool(x, self.output)


class Activation(Layer):
    """An elementwise function, by its name in `ACTIVATIONS`."""

    name: str = dataclasses.field(default="", init=False)
    kind: str = "relu"

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        return ACTIVATIONS[self.kind](x)


class Dropout(Layer):
    """Sets activations to 0 at random in training.

    Attributes:
      rate: probability of dropping an activation.
      inverted: whether the mean is kept by dividing by (1 - rate) in training, as Flax and PyTorch
        do, or by multiplying by it otherwise, as the paper does.
    """

    rate: float = 0.5
    inverted: bool = False

    def apply(self, x: jax.Array, context: Context) -> jax.Array:
        keep = 1.0 - self.rate
        if not context.train:
            return x if self.inverted else x * keep
        if context.dropout_keys is None:
            raise ValueError(f"{self.name} needs dropout_keys, or rngs={{'dropout': key}}")
        width = x.shape[-1]
        shape = (*x.shape[1:-1], width * context.count)

        def draw(key: jax.Array) -> jax.Array:
            key = jax.random.fold_in(key, context.index)
            return jax.random.bernoulli(key, keep, (math.prod(shape),)).reshape(shape)

        mask = jax.vmap(draw)(context.dropout_keys)
        if context.count > 1:  # of all features, so that it does not depend on the devices
            start = jax.lax.axis_index(context.sharding.axis_name) * width
            mask = jax.lax.dynamic_slice_in_dim(mask, start, width, axis=-1)
        kept = jnp.where(mask, x, jnp.zeros_like(x))
        return kept / keep if self.inverted else kept


# ---- Models

Kind = TypeVar("Kind", bound=Layer)


class ModelSpec(Record):
    """A model as data.

    Attributes:
      input_size: height and width of its input images, in pixels.
      channels: of its input images, 3 or 1.
      layers: in the order in which they are applied.
    """

    input_size: int
    channels: int
    layers: tuple[Layer, ...]

    @property
    def towers(self) -> int:
        """Number of towers it can be split into: 2 if it has layers of two groups, else 1."""
        return 2 if any(layer.groups == 2 for layer in self.of_kind(Conv)) else 1

    @property
    def first_dense(self) -> int:
        """Index of the first dense layer."""
        return next(i for i, layer in enumerate(self.layers) if isinstance(layer, Dense))

    @property
    def output_layer(self) -> Dense:
        """The dense layer that gives the logits."""
        return self.of_kind(Dense)[-1]

    def of_kind(self, kind: type[Kind]) -> list[Kind]:
        """Returns the layers of a kind, in order."""
        return [layer for layer in self.layers if isinstance(layer, kind)]

    def map(self, kind: type[Kind], change: Callable[[Kind], Layer | None]) -> "ModelSpec":
        """Returns the model with each layer of a kind changed, or removed where that gives None."""
        changed = (change(layer) if isinstance(layer, kind) else layer for layer in self.layers)
        return dataclasses.replace(self, layers=tuple(x for x in changed if x is not None))

    def with_num_classes(self, num_classes: int) -> "ModelSpec":
        """Returns the model with its last layer's features filled in."""
        return self.map(Dense, lambda x: dataclasses.replace(x, features=x.features or num_classes))

    def trace(
        self, num_classes: int = 2, input_size: int | None = None
    ) -> Iterator[tuple[Layer, Shape, Shape]]:
        """Yields each layer with the shapes of its input and output.

        Args:
          num_classes: outputs of the last layer.
          input_size: height and width of the images in pixels; None: the model's own.

        Raises:
          TooSmallError: a layer's window is larger than its input.
          ValueError: a layer does not fit its input.
        """
        size = input_size or self.input_size
        shape: Shape = (size, size, self.channels)
        for layer in self.with_num_classes(num_classes).layers:
            output = layer.output_shape(shape)
            yield layer, shape, output
            shape = output
