"""Narrow networks of Caffe: their files, written byte by byte, and their logits by numpy.

A network is a table of layers, as in a .prototxt. Nothing here uses protobuf or this package; field
numbers are those of caffe.proto.
"""

import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


class Layer(NamedTuple):
    """A layer of a .prototxt: its name, its type and the fields of its parameter."""

    name: str
    type: str
    fields: dict[str, Any] = {}  # noqa: RUF012


def network(
    kind: str = "alexnet", classes: int = 5, widths: tuple[int, ...] = (8, 12, 16, 12, 8)
) -> list[Layer]:
    """Returns bvlc_alexnet or bvlc_reference_caffenet with few features."""
    conv1, conv2, conv3, conv4, conv5 = (
        Layer(f"conv{i}", "Convolution", {"num_output": width, "kernel_size": size, **fields})
        for i, width, size, fields in zip(
            range(1, 6),
            widths,
            (11, 5, 3, 3, 3),
            ({"stride": 4}, {"pad": 2, "group": 2}, {"pad": 1}, *[{"pad": 1, "group": 2}] * 2),
            strict=True,
        )
    )
    lrn = {"local_size": 5, "alpha": 1e-4, "beta": 0.75}
    norm1, norm2 = Layer("norm1", "LRN", lrn), Layer("norm2", "LRN", lrn)
    pool1, pool2, pool5 = (
        Layer(f"pool{i}", "Pooling", {"pool": 0, "kernel_size": 3, "stride": 2}) for i in (1, 2, 5)
    )
    fc6, fc7, fc8 = (
        Layer(f"fc{i}", "InnerProduct", {"num_output": width})
        for i, width in zip((6, 7, 8), (20, 24, classes), strict=True)
    )
    first, second = (norm1, pool1), (norm2, pool2)
    if kind == "caffenet":
        first, second = first[::-1], second[::-1]
    relu = [Layer(f"relu{i}", "ReLU") for i in range(1, 8)]
    return [
        *(Layer("data", "Data"), Layer("label_split", "Split")),
        *(conv1, relu[0], *first, conv2, relu[1], *second),
        *(conv3, relu[2], conv4, relu[3], conv5, relu[4], pool5),
        *(fc6, relu[5], Layer("drop6", "Dropout"), fc7, relu[6], Layer("drop7", "Dropout"), fc8),
        Layer("loss", "SoftmaxWithLoss"),
    ]


def make_arrays(layers: list[Layer], size: int = 227) -> Arrays:
    """Returns asymmetric random weights and biases, a seed for each layer."""
    arrays: Arrays = {}
    channels, side = 3, size
    for name, kind, fields in layers:
        if kind == "Convolution":
            group, window = fields.get("group", 1), fields["kernel_size"]
            shape = (fields["num_output"], channels // group, window, window)
            side = (side + 2 * fields.get("pad", 0) - window) // fields.get("stride", 1) + 1
        elif kind == "Pooling":
            side = (side - 3) // 2 + 1 if fields.get("round_mode") else -(-(side - 3) // 2) + 1
            continue
        elif kind == "InnerProduct":
            shape = (fields["num_output"], channels * side**2)
            side = 1
        else:
            continue
        channels = fields["num_output"]
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        kernel = rng.normal(0.02, 1.5 / np.sqrt(np.prod(shape[1:])), shape)
        bias = rng.normal(0.1, 0.1, channels)
        arrays[name] = kernel.astype(np.float32), bias.astype(np.float32)
    return arrays


# What an importer can mistake, by the layer that shows it: HWC for CHW, RGB for BGR, transposed
# windows, exchanged groups. Each changes the logits by far more than 1e-4.
SWAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fc6": lambda kernel: (
        kernel.reshape(-1, 8, 6, 6).transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    ),
    "conv1": lambda kernel: kernel[:, ::-1],
    "conv2": lambda kernel: kernel.transpose(0, 1, 3, 2),
    "conv4": lambda kernel: np.concatenate(np.split(kernel, 2)[::-1]),
}


# ---- The logits


def logits(layers: list[Layer], arrays: Arrays, image: np.ndarray) -> np.ndarray:
    """Returns float64[classes] of float[3, size, size], BGR less the mean."""
    x = image.astype(np.float64)
    for name, kind, fields in layers:
        if kind == "Convolution":
            x = _convolution(x, *arrays[name], fields)
        elif kind == "InnerProduct":
            x = arrays[name][0] @ x.reshape(-1) + arrays[name][1]
        elif kind == "ReLU":
            x = np.maximum(x, 0)
        elif kind == "LRN":
            squares = np.pad(x**2, ((2, 2), (0, 0), (0, 0)))
            sums = sliding_window_view(squares, 5, axis=0).sum(-1)
            x = x / (1 + fields["alpha"] / 5 * sums) ** fields["beta"]
        elif kind == "Pooling":  # by default, clips windows at the edge
            rest = 0 if fields.get("round_mode") else -(x.shape[1] - 3) % 2
            padded = np.pad(x, ((0, 0), (0, rest), (0, rest)), constant_values=-np.inf)
            x = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2].max(axis=(-2, -1))
    return x


def _convolution(
    x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, fields: dict[str, int]
) -> np.ndarray:
    pad, stride, group = (fields.get(f, d) for f, d in (("pad", 0), ("stride", 1), ("group", 1)))
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    pairs = zip(np.split(windows, group), np.split(kernel, group), strict=True)
    parts = [np.einsum("iyxhw,oihw->oyx", part, half, optimize=True) for part, half in pairs]
    return np.concatenate(parts) + bias[:, None, None]


# ---- The text


def prototxt(layers: list[Layer], size: int = 227) -> str:
    """Returns the network for inference as Caffe's text, which other readers need too."""
    lines = [f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}']
    features = "data"
    for layer in layers:
        if layer.type in ("Data", "Split", "SoftmaxWithLoss"):
            continue
        bottom, features = _ends(layer, features)
        fields = " ".join(f"{name}: {_TEXTS.get(name, str)(x)}" for name, x in layer.fields.items())
        parameter = f"{_PARAMETER_NAMES[layer.type]} {{ {fields} }}" if fields else ""
        lines.append(
            f'layer {{ name: "{layer.name}" type: "{layer.type}" bottom: "{bottom}" '
            f'top: "{features}" {parameter} }}'
        )
    return "\n".join(lines)


_TEXTS = {"pool": lambda number: ("MAX", "AVE")[number]}
_PARAMETER_NAMES = {
    "Convolution": "convolution_param",
    "InnerProduct": "inner_product_param",
    "LRN": "lrn_param",
    "Pooling": "pooling_param",
}


# ---- The bytes


class Style(NamedTuple):
    """What differs between files: V1 or V2 layers, four dimensions or a shape, float or double."""

    version: int = 2
    legacy_dims: bool = False
    double: bool = False


V2 = Style()
_PARAMETERS = {  # type -> (number of V1's enum, field of its parameter in V1, in V2)
    "Convolution": (4, 10, 106),
    "Data": (5, 11, 107),
    "Dropout": (6, 12, 108),
    "InnerProduct": (14, 17, 117),
    "LRN": (15, 18, 118),
    "Pooling": (17, 19, 121),
    "ReLU": (18, 30, 123),
    "SoftmaxWithLoss": (21, 39, 125),
    "Sigmoid": (19, 38, 124),
    "Split": (22, 0, 0),
}
_FIELDS = {
    "Convolution": {"num_output": 1, "pad": 3, "kernel_size": 4, "group": 5, "stride": 6},
    "InnerProduct": {"num_output": 1, "transpose": 6},
    "LRN": {"local_size": 1, "alpha": 2, "beta": 3, "norm_region": 4, "k": 5},
    "Pooling": {"pool": 1, "kernel_size": 2, "stride": 3, "pad": 4, "round_mode": 13},
    "ReLU": {"negative_slope": 1},
    "Data": {},
}


def encode(layers: list[Layer], arrays: Arrays, style: Style = V2, transform: bytes = b"") -> bytes:
    """Returns a .caffemodel.

    Args:
      layers: of the network.
      arrays: weights and biases by layer.
      style: of the file.
      transform: a TransformationParameter of the layer "data".
    """
    top = "data"
    parts = [data(1, b"AlexNet")]
    for layer in layers:
        bottom, top = _ends(layer, top)
        message = _layer(layer, arrays.get(layer.name, ()), style, bottom, top)
        if layer.type == "Data" and transform:
            message += data(36 if style.version == 1 else 100, transform)
        parts.append(data(2 if style.version == 1 else 100, message))
        top = "data" if layer.type == "Split" else top
    return b"".join(parts)


def _ends(layer: Layer, features: str) -> tuple[str, str]:
    """Returns the names of a layer's input and output; most of Caffe's work in place."""
    if layer.type in ("ReLU", "Dropout"):
        return features, features
    return ("label", "label_split_0") if layer.type == "Split" else (features, layer.name)


def _layer(
    layer: Layer, blobs: tuple[np.ndarray, ...], style: Style, bottom: str, top: str
) -> bytes:
    enum, v1_field, v2_field = _PARAMETERS[layer.type]
    fields = b"".join(
        number(_FIELDS[layer.type][name], value) for name, value in layer.fields.items()
    )
    ends = [text.encode() for text in (bottom, top)]
    written = [_blob(array, style) for array in blobs]
    if style.version == 1:
        parts = [data(2, ends[0]), data(3, ends[1]), data(4, layer.name.encode()), number(5, enum)]
        parts += [data(6, blob) for blob in written]
    else:
        parts = [data(1, layer.name.encode()), data(2, layer.type.encode())]
        parts += [data(3, ends[0]), data(4, ends[1]), *(data(7, blob) for blob in written)]
    if fields:
        parts.append(data(v1_field if style.version == 1 else v2_field, fields))
    return b"".join(parts)


def _blob(array: np.ndarray, style: Style) -> bytes:
    """Returns a BlobProto; in four dimensions, a matrix is (1, 1, outputs, inputs)."""
    if style.legacy_dims:
        shape = (1,) * (4 - array.ndim) + array.shape
        head = b"".join(number(i, length) for i, length in enumerate(shape, 1))
    else:
        head = data(7, data(1, b"".join(varint(length) for length in array.shape)))
    if style.double:
        return head + data(8, array.astype("<f8").tobytes())
    return head + data(5, array.astype("<f4").tobytes())


def mean_file(image: np.ndarray) -> bytes:
    """Returns a .binaryproto of float32[3, size, size], BGR."""
    return _blob(image, Style(legacy_dims=True))


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def number(field: int, value: float) -> bytes:
    """Returns a field with an integer or a 32-bit float."""
    if isinstance(value, float):
        return varint(field << 3 | 5) + struct.pack("<f", value)
    return varint(field << 3) + varint(value)


def data(field: int, content: bytes) -> bytes:
    """Returns a field with bytes, text or a message."""
    return varint(field << 3 | 2) + varint(len(content)) + content
