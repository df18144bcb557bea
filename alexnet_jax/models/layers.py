"""The records a net is made of. `variants.py` strings them together, `alexnet.py` runs them."""

import dataclasses

Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Initializer:
    """How a layer's weights and biases start.

    Attributes:
      kernel: "normal" with `std`; "he_normal"; "xavier_uniform"; or "torch": uniform within
        1 / sqrt(inputs), as PyTorch's layers start, biases too.
      std: standard deviation of "normal".
      bias: value of every bias; of no meaning to "torch".
    """

    kernel: str = "normal"
    std: float = 0.01
    bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias.

    Attributes:
      name: of its parameters.
      features: maps it makes.
      size: height and width of the kernel, in pixels.
      stride: pixels from a window to the next.
      padding: zeros around the picture.
      ceil_mode: whether a last window may ceil_mode the right and bottom edge: cuda-convnet's
        1 + ceil((in - size) / stride), with zeros beyond the edge.
      groups: towers; each sees only its own part of the input maps.
      init: how it starts.
    """

    name: str
    features: int
    size: int
    stride: int = 1
    padding: int = 0
    ceil_mode: bool = False
    groups: int = 1
    init: Initializer = Initializer()


@dataclasses.dataclass(frozen=True)
class LocallyConnected:
    """A convolution of odd size and stride 1 whose weights and biases differ at every place."""

    name: str
    features: int
    size: int
    init: Initializer = Initializer()


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer.

    Attributes:
      name: of its parameters.
      features: outputs; None stands for the number of classes.
      groups: towers; each sees only its own part of the inputs.
      window: 0; or the height and width of the map it takes in, and then it runs at every place of
        a larger map as a convolution does, with the same parameters.
      init: how it starts.
    """

    name: str
    features: int | None
    groups: int = 1
    window: int = 0
    init: Initializer = Initializer()


@dataclasses.dataclass(frozen=True)
class LocalResponseNorm:
    """Local response normalization over neighboring maps, within each of `groups` towers."""

    name: str
    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4  # of the plain sum
    beta: float = 0.75
    groups: int = 1


@dataclasses.dataclass(frozen=True)
class WithinChannelResponseNorm:
    """Response normalization within a map, over a size x size neighborhood."""

    name: str
    size: int = 5
    k: float = 1.0
    alpha: float = 1e-3 / 25  # of the plain sum
    beta: float = 0.75


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """Batch normalization, over the whole batch on all devices."""

    name: str
    momentum: float = 0.9
    epsilon: float = 1e-5


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pooling by "max" or "average"; windows overlap where stride < window."""

    name: str
    kind: str = "max"
    window: int = 3
    stride: int = 2
    ceil_mode: bool = False


@dataclasses.dataclass(frozen=True)
class AdaptivePool:
    """Average pooling to output x output cells, whatever comes in."""

    name: str
    output: int = 6


@dataclasses.dataclass(frozen=True)
class Activation:
    """A function of each value: a key of `alexnet.ACTIVATIONS`."""

    kind: str = "relu"


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Drops activations in training.

    `rescale` says where the mean is kept: "test" multiplies by (1 - rate) at test time, as the
    paper does; "train" divides by it in training, as Flax and PyTorch do.
    """

    name: str
    rate: float = 0.5
    rescale: str = "test"


Layer = (
    Conv
    | LocallyConnected
    | Dense
    | LocalResponseNorm
    | WithinChannelResponseNorm
    | BatchNorm
    | Pool
    | AdaptivePool
    | Activation
    | Dropout
)


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """One net.

    Attributes:
      input_size: height and width of its picture, in pixels.
      channels: 3 or 1.
      layers: in the order of the operations.
    """

    input_size: int
    channels: int
    layers: tuple[Layer, ...]

    @property
    def towers(self) -> int:
        """Number of towers the net can be split into: 2 if it has layers of two groups, else 1."""
        return 2 if any(isinstance(x, Conv) and x.groups == 2 for x in self.layers) else 1


def padding_of(layer: Conv, height: int, width: int) -> Padding:
    """Returns the zeros above and below, left and right of a convolution's input.

    Args:
      layer: the convolution.
      height: of its input.
      width: of its input.
    """

    def pads(side: int) -> tuple[int, int]:
        excess = (side + 2 * layer.padding - layer.size) % layer.stride
        ceil_mode = layer.stride - excess if layer.ceil_mode and excess else 0
        return layer.padding, layer.padding + ceil_mode

    return pads(height), pads(width)
