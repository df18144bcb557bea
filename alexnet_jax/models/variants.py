"""Every model of the family as a list of its layers.

The order of the records is the order of the operations, such as LRN before ReLU or dropout before
fc6. `overrides.py` changes a model, `summary.py` counts one.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from alexnet_jax.models.layers import (
    NUM_CLASSES,
    Activation,
    AdaptivePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    GroupNorm,
    Layer,
    LocallyConnected,
    LocalResponseNorm,
    ModelSpec,
    Pool,
    WithinChannelResponseNorm,
)
from alexnet_jax.models.overrides import with_fields, with_initializer, without_kind

Stds = Mapping[str, float] | None  # standard deviations of the initial weights, by layer

RELU = Activation()
TWO_TOWERS = (96, 256, 384, 384, 256)  # features of the convolutions
CAFFE_ALPHA = CODED_ALPHA = 1e-4 / 5  # both divide the alpha of their configuration by the window


def _model(
    *layers: Layer, size: int = 224, channels: int = 3, initializer: str = "", stds: Stds = None
) -> ModelSpec:
    spec = ModelSpec(size, channels, layers)
    spec = with_initializer(spec, initializer) if initializer else spec
    return with_fields(spec, {name: {"std": std} for name, std in (stds or {}).items()})


def _lrn(name: str, groups: int = 2) -> LocalResponseNorm:
    """As in the authors' code: alpha divided by the window, k = 2."""
    return LocalResponseNorm(name, alpha=CODED_ALPHA, groups=groups)


def _head(width: int = 4096, inverted: bool = False) -> tuple[Layer, ...]:
    """The fully connected layers, with dropout on the outputs of the first two."""
    return (
        *(Dense("fc6", width), RELU, Dropout("drop6", inverted=inverted)),
        *(Dense("fc7", width), RELU, Dropout("drop7", inverted=inverted)),
        Dense("fc8", NUM_CLASSES),
    )


def _end(
    groups: int, conv3: int = 384, conv4: int = 384, conv5: int = 256, *, pool_first: bool = True
) -> tuple[Layer, ...]:
    """conv3 to pool5; the authors' configuration 145 pools before the last ReLU."""
    return (
        *(Conv("conv3", conv3, 3, padding=1), RELU),
        *(Conv("conv4", conv4, 3, padding=1, groups=groups), RELU),
        Conv("conv5", conv5, 3, padding=1, groups=groups),
        *((Pool("pool5"), RELU) if pool_first else (RELU, Pool("pool5"))),
    )


def _as_coded(
    features: Sequence[int], *tail: Layer, groups: int = 1, initializer: str = "source"
) -> ModelSpec:
    """The authors' own order of layers: LRN on the linear output of conv1, ReLU after pooling.

    Their convolutions round the output size up, which pads a 224-pixel image by 3 at the right and
    bottom.
    """
    conv1, conv2, *others = features
    return _model(
        *(Conv("conv1", conv1, 11, stride=4, ceil_mode=True), _lrn("norm1", groups)),
        *(Pool("pool1"), RELU),
        *(Conv("conv2", conv2, 5, padding=2, groups=groups), RELU, _lrn("norm2", groups)),
        *(WithinChannelResponseNorm("within_channel_norm2"), Pool("pool2")),
        *_end(groups, *others),
        *(tail or _head()),
        initializer=initializer,
    )


def _caffe(groups: int, initializer: str, norm_first: bool = True) -> ModelSpec:
    """Caffe's two models: 227 pixels, LRN over all channels, before the pool or after it."""

    def norm_and_pool(index: int) -> tuple[Layer, Layer]:
        norm = LocalResponseNorm(f"norm{index}", k=1.0, alpha=CAFFE_ALPHA)
        pool = Pool(f"pool{index}")
        return (norm, pool) if norm_first else (pool, norm)

    return _model(
        *(Conv("conv1", 96, 11, stride=4), RELU, *norm_and_pool(1)),
        *(Conv("conv2", 256, 5, padding=2, groups=groups), RELU, *norm_and_pool(2)),
        *_end(groups),
        *_head(inverted=True),
        size=227,
        initializer=initializer,
    )


def _normalized(norm: Callable[[str], Layer], *also_after: str) -> ModelSpec:
    """The ungrouped model with a norm after every hidden layer with weights, without dropout."""
    spec = without_kind(without_kind(_caffe(1, "kaiming"), LocalResponseNorm), Dropout)
    layers: list[Layer] = []
    for layer in spec.layers:
        layers.append(layer)
        if isinstance(layer, (Conv, Dense)) and (layer.features or layer.name in also_after):
            layers.append(norm(f"{layer.name}_norm"))
    return dataclasses.replace(spec, layers=tuple(layers))


def _cifar_three(*norms: Layer, hidden: tuple[Layer, ...] = (), stds: Stds = None) -> ModelSpec:
    """cuda-convnet's layers-80sec, 19pct and 18pct: three convolutions, average pooling."""
    return _model(
        *(Conv("conv1", 32, 5, padding=2), Pool("pool1", ceil_mode=True), RELU, *norms[:1]),
        *(Conv("conv2", 32, 5, padding=2), RELU),
        *(Pool("pool2", "average", ceil_mode=True), *norms[1:]),
        *(Conv("conv3", 64, 5, padding=2), RELU, Pool("pool3", "average", ceil_mode=True)),
        *(*hidden, Dense("fc10", NUM_CLASSES)),
        size=32,
        stds={"conv1": 1e-4, **(stds or {})},
    )


def _cifar_local(*norms: Layer, local3: int) -> ModelSpec:
    """cuda-convnet's conv-local models: two convolutions, two locally connected layers."""
    return _model(
        *(Conv("conv1", 64, 5, padding=2), RELU, Pool("pool1", ceil_mode=True), *norms[:1]),
        *(Conv("conv2", 64, 5, padding=2), RELU, *norms[1:], Pool("pool2", ceil_mode=True)),
        *(LocallyConnected("local3", local3, 3), RELU, LocallyConnected("local4", 32, 3), RELU),
        Dense("fc10", NUM_CLASSES),
        size=24,
        stds={"conv1": 1e-4, "local3": 0.04, "local4": 0.04},
    )


_CIFAR_WITHIN_CHANNEL = tuple(
    WithinChannelResponseNorm(name, size=3, k=1.0, alpha=5e-5 / 9) for name in ("norm1", "norm2")
)
_CIFAR_LRN = tuple(
    LocalResponseNorm(name, size=9, k=1.0, alpha=1e-3 / 9) for name in ("norm1", "norm2")
)

_PAPER = _as_coded(TWO_TOWERS, groups=2)

VARIANTS: Mapping[str, ModelSpec] = {
    # Configuration 145, the model of the paper as its authors coded it.
    "paper": _PAPER,
    # The paper's text taken literally: ReLU right after each convolution, LRN with alpha
    # on the plain sum, no within-channel LRN (sections 3.3, 3.5, 5).
    "paper_text": _model(
        *(Conv("conv1", 96, 11, stride=4, ceil_mode=True), RELU),
        *(LocalResponseNorm("norm1", groups=2), Pool("pool1")),
        *(Conv("conv2", 256, 5, padding=2, groups=2), RELU),
        *(LocalResponseNorm("norm2", groups=2), Pool("pool2")),
        *_end(2, pool_first=False),
        *_head(),
        initializer="text",
    ),
    # cuda-convnet2's model for one GPU (layers-imagenet-1gpu.cfg).
    "one_tower": without_kind(
        _as_coded((64, 192, 384, 256, 256), initializer="one_tower"), WithinChannelResponseNorm
    ),
    # Configuration 145-half: one column, but conv5 and the dense layers have the width of both.
    "half": _as_coded((48, 128, 192, 192, 256)),
    # One tower only, with dense layers of half the width too.
    "half_tower": _as_coded((48, 128, 192, 192, 128), *_head(2048), initializer="kaiming"),
    # Configuration 146: a sixth convolution, which sees both towers, after the last pool.
    "six_conv": _as_coded(TWO_TOWERS, Conv("conv6", 256, 3, padding=1), RELU, *_head(), groups=2),
    # Configuration 150: the towers exchange features only at the logits, and are wider before.
    "no_communication": with_fields(
        _PAPER,
        {
            "conv2": {"features": 320},
            "conv3": {"groups": 2},
            "fc6": {"features": 8192, "groups": 2},
            "fc7": {"groups": 2},
        },
    ),
    "caffe": _caffe(2, "caffe"),
    "caffenet": _caffe(2, "caffenet", norm_first=False),
    "ungrouped": _caffe(1, "caffe"),
    # Zeiler & Fergus 2013, figure 3: smaller windows and strides, contrast normalization after the
    # pools; feature maps of 110, 55, 26, 13 and 6 pixels. The constants of the norm are not
    # published: those of the authors' AlexNet are used.
    "zfnet": _model(
        *(Conv("conv1", 96, 7, stride=2, padding=1), RELU),
        *(Pool("pool1", ceil_mode=True), _lrn("norm1", groups=1)),
        *(Conv("conv2", 256, 5, stride=2), RELU),
        *(Pool("pool2", ceil_mode=True), _lrn("norm2", groups=1)),
        *_end(groups=1),
        *_head(),
    ),
    # torchvision.models.alexnet: one tower without LRN; dropout before fc6 and fc7.
    "torchvision": _model(
        *(Conv("conv1", 64, 11, stride=4, padding=2), RELU, Pool("pool1")),
        *(Conv("conv2", 192, 5, padding=2), RELU, Pool("pool2")),
        *(*_end(1, 384, 256, 256, pool_first=False), AdaptivePool("average")),
        *(Dropout("drop6", inverted=True), Dense("fc6", 4096), RELU),
        *(Dropout("drop7", inverted=True), Dense("fc7", 4096), RELU),
        Dense("fc8", NUM_CLASSES),
        initializer="torch",
    ),
    "batchnorm": _normalized(BatchNorm, "fc8"),
    "groupnorm": _normalized(GroupNorm),
    # A small version of the paper's model for 28-pixel digits cropped to 24: two towers that
    # exchange features at conv3 and the dense layers, LRN, overlapping pooling, dropout. The
    # standard deviations preserve the scale of the signal.
    "digits": _model(
        *(Conv("conv1", 32, 5, padding=2), _lrn("norm1"), Pool("pool1"), RELU),
        *(Conv("conv2", 64, 5, padding=2, groups=2), RELU, _lrn("norm2"), Pool("pool2")),
        *_end(2, 64, 64, 64),
        *_head(512),
        size=24,
        channels=1,
        stds={"conv2": 0.05, "conv3": 0.06, "conv4": 0.08, "conv5": 0.08, "fc6": 0.09, "fc7": 0.06},
    ),
    # cuda-convnet's CIFAR-10 models, by their test error in percent
    "cifar_26": _cifar_three(hidden=(Dense("fc64", 64), RELU), stds={"fc64": 0.1, "fc10": 0.1}),
    "cifar_19": _cifar_three(),
    "cifar_18": _cifar_three(*_CIFAR_WITHIN_CHANNEL),
    "cifar_13": _cifar_local(local3=32),
    "cifar_11": _cifar_local(*_CIFAR_LRN, local3=64),
}
