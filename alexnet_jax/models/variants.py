"""Every net as a row of data: its layers in order, each with its own numbers.

A layer is a small record; a net is a tuple of them. The order of the records is the order of the
operations, so "LRN before ReLU" or "dropout before fc6" is told by position alone. `alexnet.py`
runs a row, `summary.py` counts it.
"""

import dataclasses
from collections.abc import Mapping

Padding = int | tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution with bias; `groups` halves see only their own part of the input maps."""

    name: str
    features: int
    size: int
    stride: int = 1
    padding: Padding = 0
    groups: int = 1
    std: float = 0.01
    bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class Dense:
    """A fully connected layer; `features` None stands for the number of classes."""

    name: str
    features: int | None
    std: float = 0.01
    bias: float = 0.0


@dataclasses.dataclass(frozen=True)
class ResponseNorm:
    """Local response normalisation over neighbouring maps, within each of `groups` towers."""

    name: str
    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4  # of the plain sum
    groups: int = 2


@dataclasses.dataclass(frozen=True)
class SpatialNorm:
    """Response normalisation within a map, over a size x size neighbourhood."""

    name: str
    size: int = 5
    k: float = 1.0
    alpha: float = 1e-3 / 25  # of the plain sum


@dataclasses.dataclass(frozen=True)
class MaxPool:
    """Max pooling; windows overlap where stride < window."""

    name: str
    window: int = 3
    stride: int = 2


@dataclasses.dataclass(frozen=True)
class Relu:
    """max(x, 0)."""


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Drops activations in training.

    `rescale` says where the mean is kept: "test" multiplies by (1 - rate) at test time, as the
    paper does; "train" divides by it in training, as Flax and PyTorch do.
    """

    rate: float = 0.5
    rescale: str = "test"


Layer = Conv | Dense | ResponseNorm | SpatialNorm | MaxPool | Relu | Dropout


@dataclasses.dataclass(frozen=True)
class Network:
    """One net: its input (pixels, channels) and its layers in order."""

    input_size: int
    channels: int
    layers: tuple[Layer, ...]

    @property
    def towers(self) -> int:
        """Number of towers the net can be split into: 2 if its grouped layers allow it, else 1."""
        grouped = any(isinstance(layer, Conv) and layer.groups == 2 for layer in self.layers)
        norms = [layer for layer in self.layers if isinstance(layer, ResponseNorm)]
        return 2 if grouped and all(norm.groups == 2 for norm in norms) else 1


def _paper_head() -> tuple[Layer, ...]:
    return (
        Dense("fc6", 4096, bias=1.0),
        Relu(),
        Dropout(),
        Dense("fc7", 4096, bias=1.0),
        Relu(),
        Dropout(),
        Dense("fc8", None),
    )


# The authors' configuration 145 (paper.cfg comments: paper text against code).
# The picture is 224 pixels wide; the ceil rule of their convolutions pads 3 at right and bottom.
PAPER = Network(
    input_size=224,
    channels=3,
    layers=(
        Conv("conv1", 96, 11, stride=4, padding=((0, 3), (0, 3))),
        ResponseNorm("norm1", alpha=1e-4 / 5),
        MaxPool("pool1"),
        Relu(),
        Conv("conv2", 256, 5, padding=2, groups=2, bias=1.0),
        Relu(),
        ResponseNorm("norm2", alpha=1e-4 / 5),
        SpatialNorm("spatial_norm2"),
        MaxPool("pool2"),
        Conv("conv3", 384, 3, padding=1, std=0.03),
        Relu(),
        Conv("conv4", 384, 3, padding=1, groups=2, std=0.03, bias=1.0),
        Relu(),
        Conv("conv5", 256, 3, padding=1, groups=2, std=0.03, bias=1.0),
        MaxPool("pool5"),
        Relu(),
        *_paper_head(),
    ),
)

# What the paper's text says, word for word: std 0.01 everywhere, ReLU straight after each
# convolution, LRN with alpha on the plain sum, no spatial norm (sections 3.3, 3.5, 5).
PAPER_TEXT = Network(
    input_size=224,
    channels=3,
    layers=(
        Conv("conv1", 96, 11, stride=4, padding=((0, 3), (0, 3))),
        Relu(),
        ResponseNorm("norm1"),
        MaxPool("pool1"),
        Conv("conv2", 256, 5, padding=2, groups=2, bias=1.0),
        Relu(),
        ResponseNorm("norm2"),
        MaxPool("pool2"),
        Conv("conv3", 384, 3, padding=1),
        Relu(),
        Conv("conv4", 384, 3, padding=1, groups=2, bias=1.0),
        Relu(),
        Conv("conv5", 256, 3, padding=1, groups=2, bias=1.0),
        Relu(),
        MaxPool("pool5"),
        *_paper_head(),
    ),
)

# The paper's net drawn small, for 28-pixel digits cropped to 24: two towers that meet at conv3
# and the dense layers, LRN, overlapping pooling, dropout. Stds keep the signal's size (He).
DIGITS = Network(
    input_size=24,
    channels=1,
    layers=(
        Conv("conv1", 32, 5, padding=2, std=0.01),
        ResponseNorm("norm1", alpha=1e-4 / 5),
        MaxPool("pool1"),
        Relu(),
        Conv("conv2", 64, 5, padding=2, groups=2, std=0.05),
        Relu(),
        ResponseNorm("norm2", alpha=1e-4 / 5),
        MaxPool("pool2"),
        Conv("conv3", 64, 3, padding=1, std=0.06),
        Relu(),
        Conv("conv4", 64, 3, padding=1, groups=2, std=0.08),
        Relu(),
        Conv("conv5", 64, 3, padding=1, groups=2, std=0.08),
        MaxPool("pool5"),
        Relu(),
        Dense("fc6", 512, std=0.09),
        Relu(),
        Dropout(),
        Dense("fc7", 512, std=0.06),
        Relu(),
        Dropout(),
        Dense("fc8", None),
    ),
)

NETWORKS: Mapping[str, Network] = {
    "paper": PAPER,
    "paper_text": PAPER_TEXT,
    "digits": DIGITS,
}
