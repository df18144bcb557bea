"""A model as an ONNX graph, and back: each kind of layer as nodes of the standard operators.

The input is the pixels of center crops, `float32[batch, channels, height, width]` in 0..255, RGB;
the mean and the scale are part of the graph. A new kind of layer is a function and its row in
`_EMITTERS`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from alexnet_jax.errors import InputError
from alexnet_jax.models import layers
from alexnet_jax.models.layers import ModelSpec, Shape
from alexnet_jax.weights import own_names
from alexnet_jax.weights.layout import (
    Arrays,
    Config,
    Layout,
    from_params,
    own_layout,
    spec_of,
)
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

METADATA = "alexnet_jax"  # key in the model's metadata
# Old enough for the runtimes of recent years; LayerNormalization is new in 17.
_OPSET, _IR_VERSION = 17, 8
_ACTIVATIONS = {
    "relu": ("Relu",),
    "tanh": ("Tanh",),
    "sigmoid": ("Sigmoid",),
    "abs_tanh": ("Tanh", "Abs"),
}


class _Graph:
    """Nodes in order, and the arrays they use."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: dict[str, np.ndarray] = {}

    def add(self, operator: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node, whose inputs are names or constants, and returns the name of its output."""
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [output], name=output, **attributes))
        return output

    def constant(self, value: Any, name: str = "") -> str:
        """Adds an array, float32 or int64, and returns its name."""
        array = np.asarray(value)
        name = name or f"constant_{len(self.arrays)}"
        self.arrays[name] = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        return name

    def name_output(self, name: str) -> str:
        """Renames the output of the last node."""
        self.nodes[-1].output[0] = name
        return name


def to_onnx(model_file: ModelFile) -> onnx.ModelProto:
    """Returns a model with the outputs `logits` and `probabilities`, `float32[batch, classes]`.

    Its metadata is that of `own_names`, and a description of the input.

    Raises:
      InputError: there are no operators for a layer.
    """
    config = model_file.config
    spec = spec_of(config).with_num_classes(config["model.num_classes"])
    graph = _Graph()
    for name, array in from_params(model_file, _layout(config)).items():
        graph.constant(array, name)
    x = _preprocess(graph, spec.input_size, model_file)
    *_, (_, _, output) = spec.trace()
    for layer, shape, _ in spec.trace():
        emit = _EMITTERS.get(type(layer))
        if emit is None:
            kind = type(layer).__name__
            raise InputError(f"ONNX has no operators for the layer {layer.name} ({kind}).")
        before, x = x, emit(graph, x, layer, shape)
        if layer.name and x != before:
            x = graph.name_output(f"{layer.name}_output")
    if len(output) == 3:  # of a fully convolutional model
        graph.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    graph.name_output("logits")
    graph.add("Softmax", "logits", axis=1)
    graph.name_output("probabilities")
    model = _model(graph, spec, output[-1])
    metadata = {"input": _describe_input(spec, config)}
    helper.set_model_props(model, {METADATA: own_names.metadata_of(model_file), **metadata})
    return model


def from_onnx(arrays: Arrays, metadata: str, options: ReadOptions) -> ModelFile:
    """Returns the model that `to_onnx` wrote.

    Args:
      arrays: the initializers.
      metadata: the model's, at METADATA.
      options: how to read it.

    Raises:
      InputError: the arrays do not fit the model.
    """
    named = {name: x for name, x in arrays.items() if "/" in name or name == own_names.MEAN}
    note = "This package wrote the file."
    return own_names.to_model(named, metadata, options, note, layout_of=_layout)


def _describe_input(spec: ModelSpec, config: Config) -> str:
    side = config.get("data.image_size", 256)
    resize = config.get("data.resize", "crop")
    colors = "RGB" if spec.channels == 3 else "gray"
    return (
        f"{colors} values in 0..255 of the center {spec.input_size} x {spec.input_size} pixels of "
        f"images that are resized to {side} x {side} (data.resize={resize}); the mean and the "
        "scale are part of the model."
    )


def _layout(config: Config) -> Layout:
    """Returns our names for arrays as ONNX has them."""
    own = own_layout(config)
    return dataclasses.replace(own, conv_axes="OIHW", dense_axes="OI", flattening="CHW")


def _model(graph: _Graph, spec: ModelSpec, outputs: int) -> onnx.ModelProto:
    """Returns a checked model of any batch size."""

    def value(name: str, *shape: int) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

    proto = helper.make_graph(
        graph.nodes,
        "alexnet_jax",
        [value("images", spec.channels, spec.input_size, spec.input_size)],
        [value("logits", outputs), value("probabilities", outputs)],
        [numpy_helper.from_array(array, name) for name, array in graph.arrays.items()],
    )
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(proto, opset_imports=[opset], ir_version=_IR_VERSION)
    model.producer_name = "alexnet_jax"
    onnx.checker.check_model(model, full_check=True)
    return model


def _preprocess(graph: _Graph, size: int, model_file: ModelFile) -> str:
    """Subtracts the mean, of a mean image its center, and scales."""
    config, x = model_file.config, "images"
    if model_file.mean is not None:
        mean = graph.constant(model_file.mean.transpose(2, 0, 1)[None], own_names.MEAN)
        start = (len(model_file.mean) - size) // 2
        x = graph.add("Sub", x, graph.add("Slice", mean, [start] * 2, [start + size] * 2, [2, 3]))
    elif config.get("augment.mean") == "given":
        color = np.reshape(config["augment.channel_mean"], (1, -1, 1, 1))
        x = graph.add("Sub", x, graph.constant(color, "channel_mean"))
    stds = config.get("augment.channel_std", ())
    scale = [1 / std for std in stds] or [config.get("augment.scale", 1.0)]
    return graph.add("Mul", x, graph.constant(np.reshape(scale, (1, -1, 1, 1)), "scale"))


# ---- Layers with weights


def _conv(graph: _Graph, x: str, layer: layers.Conv, shape: Shape) -> str:
    (top, bottom), (left, right) = layer.pads(shape[0]), layer.pads(shape[1])
    return graph.add(
        "Conv",
        *(x, f"{layer.name}/kernel", f"{layer.name}/bias"),
        strides=[layer.stride] * 2,
        pads=[top, left, bottom, right],
        group=layer.groups,
    )


def _dense(graph: _Graph, x: str, layer: layers.Dense, shape: Shape) -> str:
    """A matrix product, or a convolution where there are groups or several positions."""
    kernel, bias = f"{layer.name}/kernel", f"{layer.name}/bias"
    size = layer.input_spatial_size if len(shape) == 3 else 0
    if layer.groups == 1 and not size:
        x = graph.add("Flatten", x) if len(shape) == 3 else x
        return graph.add("Gemm", x, kernel, bias, transB=1)
    window = (size, size) if size else (*shape[:-1], 1, 1)[:2]
    kernel = graph.add("Reshape", kernel, [0, shape[-1] // layer.groups, *window])
    if len(shape) == 1:
        x = graph.add("Reshape", x, [0, shape[0], 1, 1])
    x = graph.add("Conv", x, kernel, bias, group=layer.groups)
    return x if size else graph.add("Flatten", x)


def _locally_connected(graph: _Graph, x: str, layer: layers.LocallyConnected, shape: Shape) -> str:
    height, width, _ = shape
    reach = layer.kernel_size // 2
    padded = graph.add("Pad", x, [0, 0, reach, reach, 0, 0, reach, reach])
    windows = [
        graph.add("Slice", padded, [top, left], [top + height, left + width], [2, 3])
        for top in range(layer.kernel_size)
        for left in range(layer.kernel_size)
    ]
    stacked = graph.add("Concat", *windows, axis=1)
    product = graph.add("Einsum", stacked, f"{layer.name}/kernel", equation="bihw,hwio->bohw")
    return graph.add("Add", product, graph.add("Transpose", f"{layer.name}/bias", perm=[2, 0, 1]))


# ---- Norms


def _local_response_norm(
    graph: _Graph, x: str, layer: layers.LocalResponseNorm, shape: Shape
) -> str:
    """ONNX's LRN if the window is odd: an even one reaches further forward there, backward here."""
    height, width, channels = shape
    part = channels // layer.groups
    if layer.size % 2:
        alpha = layer.alpha * layer.size
        constants = {"size": layer.size, "alpha": alpha, "beta": layer.beta, "bias": layer.k}
        if layer.groups == 1:
            return graph.add("LRN", x, **constants)
        x = graph.add("Reshape", x, [-1, part, height, width])
        x = graph.add("LRN", x, **constants)
    else:
        x = graph.add("Reshape", x, [-1, layer.groups, part, height * width])
        x = _response_norm(graph, x, layer, (layer.size, 1))
    return graph.add("Reshape", x, [-1, channels, height, width])


def _within_channel(graph: _Graph, x: str, layer: layers.ResponseNorm, shape: Shape) -> str:
    return _response_norm(graph, x, layer, (layer.size, layer.size))


def _response_norm(
    graph: _Graph, x: str, layer: layers.ResponseNorm, window: tuple[int, int]
) -> str:
    """A response norm over windows of the last two axes."""
    mean = graph.add(
        "AveragePool",
        graph.add("Mul", x, x),
        kernel_shape=window,
        strides=[1, 1],
        pads=[*(size // 2 for size in window), *((size - 1) // 2 for size in window)],
        count_include_pad=1,
    )
    weighted = graph.add("Mul", mean, layer.alpha * window[0] * window[1])
    denominator = graph.add("Pow", graph.add("Add", weighted, layer.k), layer.beta)
    return graph.add("Div", x, denominator)


def _batch_norm(graph: _Graph, x: str, layer: layers.BatchNorm, shape: Shape) -> str:
    arrays = [f"{layer.name}/{name}" for name in ("scale", "bias")]
    arrays += [f"batch_stats/{layer.name}/{name}" for name in ("mean", "var")]
    return graph.add("BatchNormalization", x, *arrays, epsilon=layer.epsilon)


def _layer_norm(graph: _Graph, x: str, layer: layers.LayerNorm, shape: Shape) -> str:
    arrays = [f"{layer.name}/{name}" for name in ("scale", "bias")]
    if len(shape) == 1:
        return graph.add("LayerNormalization", x, *arrays, epsilon=layer.epsilon)
    x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.add("LayerNormalization", x, *arrays, epsilon=layer.epsilon)
    return graph.add("Transpose", x, perm=[0, 3, 1, 2])


def _group_norm(graph: _Graph, x: str, layer: layers.GroupNorm, shape: Shape) -> str:
    """An instance norm of each group, then scale and bias of each feature."""
    ones = np.ones(layer.groups, np.float32)
    grouped = graph.add("Reshape", x, [0, layer.groups, -1])
    normed = graph.add("InstanceNormalization", grouped, ones, 0 * ones, epsilon=layer.epsilon)
    x = graph.add("Reshape", normed, [-1, shape[-1], *shape[:-1]])
    axes = [-1, *[1] * (len(shape) - 1)]
    scale, bias = (graph.add("Reshape", f"{layer.name}/{y}", axes) for y in ("scale", "bias"))
    return graph.add("Add", graph.add("Mul", x, scale), bias)


# ---- Pooling, activations, dropout


def _pool(graph: _Graph, x: str, layer: layers.Pool, shape: Shape) -> str:
    rows, columns, _ = layer.output_shape(shape)
    ends = [
        max(0, (count - 1) * layer.stride + layer.window - length)
        for count, length in zip((rows, columns), shape[:2], strict=True)
    ]
    operator = {"max": "MaxPool", "average": "AveragePool"}[layer.kind]
    window, strides = [layer.window] * 2, [layer.stride] * 2
    return graph.add(operator, x, kernel_shape=window, strides=strides, pads=[0, 0, *ends])


def _adaptive_pool(graph: _Graph, x: str, layer: layers.AdaptivePool, shape: Shape) -> str:
    """Averages by a matrix for each side, if the size changes."""
    rows, columns = (_averages(length, layer.output) for length in shape[:2])
    if shape[:2] == (layer.output, layer.output):
        return x
    return graph.add("MatMul", graph.add("MatMul", rows, x), columns.T)


def _averages(length: int, output: int) -> np.ndarray:
    """Returns the matrix float32[output, length] of ops.adaptive_average_pool."""
    matrix = np.zeros((output, length), np.float32)
    for i in range(output):
        cell = slice(i * length // output, -(-(i + 1) * length // output))
        matrix[i, cell] = 1 / (cell.stop - cell.start)
    return matrix


def _activation(graph: _Graph, x: str, layer: layers.Activation, shape: Shape) -> str:
    for operator in _ACTIVATIONS[layer.kind]:
        x = graph.add(operator, x)
    return x


def _dropout(graph: _Graph, x: str, layer: layers.Dropout, shape: Shape) -> str:
    return x if layer.inverted else graph.add("Mul", x, 1.0 - layer.rate)


# Kind of layer -> what adds its nodes and returns the name of its output, given the graph, the name
# and the shape (of one example, channels last) of its input, and the layer.
_EMITTERS: Mapping[type[layers.Layer], Callable[[_Graph, str, Any, Shape], str]] = {
    layers.Conv: _conv,
    layers.Dense: _dense,
    layers.LocallyConnected: _locally_connected,
    layers.LocalResponseNorm: _local_response_norm,
    layers.WithinChannelResponseNorm: _within_channel,
    layers.BatchNorm: _batch_norm,
    layers.LayerNorm: _layer_norm,
    layers.GroupNorm: _group_norm,
    layers.Pool: _pool,
    layers.AdaptivePool: _adaptive_pool,
    layers.Activation: _activation,
    layers.Dropout: _dropout,
}
