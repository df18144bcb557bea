"""Caffe's .caffemodel, with V1 or V2 layers, and its mean images, .binaryproto.

A .caffemodel holds its network: the layers with their fields and weights, and the crop of the
training images.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from alexnet_jax.errors import InputError
from alexnet_jax.models.layers import Activation, Dense
from alexnet_jax.weights.graph import Graph, find_model, to_model_file, unsupported
from alexnet_jax.weights.layout import CAFFE_PIXELS, Layout, mean_image
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

# The fields of Caffe's caffe.proto that matter here. Strings are declared as bytes, as they may not
# be UTF-8, and so are packed numbers: protobuf would make each float a Python object.
_PROTO = """
message BlobShape { repeated int64 dim = 1; }
message BlobProto {
  optional int32 num = 1; optional int32 channels = 2;
  optional int32 height = 3; optional int32 width = 4;
  repeated bytes data = 5; optional BlobShape shape = 7; repeated bytes double_data = 8;
}
message ConvolutionParameter {
  optional uint32 num_output = 1; repeated uint32 pad = 3; repeated uint32 kernel_size = 4;
  optional uint32 group = 5 [default = 1]; repeated uint32 stride = 6;
  optional uint32 pad_h = 9; optional uint32 pad_w = 10;
  optional uint32 kernel_h = 11; optional uint32 kernel_w = 12;
  optional uint32 stride_h = 13; optional uint32 stride_w = 14; repeated uint32 dilation = 18;
}
message InnerProductParameter {
  optional uint32 num_output = 1; optional bool transpose = 6;
}
message LRNParameter {
  optional uint32 local_size = 1 [default = 5]; optional float alpha = 2 [default = 1];
  optional float beta = 3 [default = 0.75]; optional int32 norm_region = 4;
  optional float k = 5 [default = 1];
}
message PoolingParameter {
  optional int32 pool = 1; repeated uint32 kernel_size = 2; repeated uint32 stride = 3;
  repeated uint32 pad = 4; optional uint32 kernel_h = 5; optional uint32 kernel_w = 6;
  optional uint32 stride_h = 7; optional uint32 stride_w = 8;
  optional uint32 pad_h = 9; optional uint32 pad_w = 10;
  optional bool global_pooling = 12; optional int32 round_mode = 13;
}
message ReLUParameter { optional float negative_slope = 1; }
message TransformationParameter {
  optional float scale = 1 [default = 1]; optional uint32 crop_size = 3;
  repeated float mean_value = 5;
}
message InputParameter { repeated BlobShape shape = 1; }
message V1LayerParameter {
  repeated bytes bottom = 2; repeated bytes top = 3; optional bytes name = 4;
  optional int32 type = 5; repeated BlobProto blobs = 6;
  optional ConvolutionParameter convolution_param = 10;
  optional InnerProductParameter inner_product_param = 17; optional LRNParameter lrn_param = 18;
  optional PoolingParameter pooling_param = 19; optional ReLUParameter relu_param = 30;
  optional TransformationParameter transform_param = 36;
}
message LayerParameter {
  optional bytes name = 1; optional bytes type = 2; repeated bytes bottom = 3;
  repeated bytes top = 4; repeated BlobProto blobs = 7;
  optional TransformationParameter transform_param = 100;
  optional ConvolutionParameter convolution_param = 106;
  optional InnerProductParameter inner_product_param = 117; optional LRNParameter lrn_param = 118;
  optional PoolingParameter pooling_param = 121; optional ReLUParameter relu_param = 123;
  optional InputParameter input_param = 143;
}
message NetParameter {
  repeated V1LayerParameter layers = 2; repeated int32 input_dim = 4;
  repeated BlobShape input_shape = 8; repeated LayerParameter layer = 100;
}
"""
_FIELD = re.compile(r"(optional|repeated) (\w+) (\w+) = (\d+)(?: \[default = ([^]]+)\])?;")


def _message_class(name: str) -> Any:
    """Returns the class of a message of _PROTO."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe", package="caffe", syntax="proto2")
    for title, body in re.findall(r"message (\w+) \{(.*?)\}", _PROTO, re.S):
        message_type = file.message_type.add(name=title)
        for label, kind, field, number, default in _FIELD.findall(body):
            added = message_type.field.add(name=field, number=int(number))
            added.label = descriptor_pb2.FieldDescriptorProto.Label.Value(f"LABEL_{label.upper()}")
            if kind[0].isupper():
                added.type_name = f".caffe.{kind}"
            else:
                type_name = f"TYPE_{kind.upper()}"
                added.type = descriptor_pb2.FieldDescriptorProto.Type.Value(type_name)
            if default:
                added.default_value = default
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}"))


_NET, _BLOB = _message_class("NetParameter"), _message_class("BlobProto")

# Layers before the first or after the last one here, and those that only pass features on
_END = re.compile(r"\w*(Data|Loss)|Accuracy|ArgMax|Input|Silence|Softmax\w*")
_PASSED = ("Dropout", "Flatten", "Split")
_V1_TYPES = {
    **dict.fromkeys((5, 9, 12, 24, 29, 32), "Data"),
    **dict.fromkeys((1, 7, 13, 16, 20, 21, 27, 28, 30, 36), "Softmax"),
    4: "Convolution",
    6: "Dropout",
    8: "Flatten",
    14: "InnerProduct",
    15: "LRN",
    17: "Pooling",
    18: "ReLU",
    22: "Split",
}
_LAYER_TAGS = (b"\x12", b"\xa2\x06")  # of fields 2 and 100
_OTHER_TAGS = (b"\x1a", b"\x22", b"\x28", b"\x32", b"\x38", b"\x42")  # of fields 3 to 8
_INPUT_SIZE = 227  # of files that do not declare it


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file begins like a NetParameter: with a name or a layer."""
    length = head[1] if head[:1] == b"\x0a" and len(head) > 1 else 128
    named = length < 128 and head.startswith((*_LAYER_TAGS, *_OTHER_TAGS), 2 + length)
    return named or head.startswith(_LAYER_TAGS)


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads a .caffemodel.

    Raises:
      InputError: it is damaged, or not a model of this package.
    """
    net = _parse(_NET, path)
    layers = [*net.layers, *net.layer]
    graph = Graph(_input_size(net, layers))
    for layer, kind in _chain(layers):
        if kind not in _ADD:
            raise unsupported(f"the layer {_name(layer)} of type {kind}")
        _ADD[kind](graph, layer)
    match = find_model(graph, options.model)
    order = options.channel_order or "bgr"
    pixels, note = _pixels(layers, order)
    pixels["data.image_size"] = max(pixels["data.image_size"], graph.input_size)
    layout = Layout("caffe", match.model, {}, pixels, channel_order=order)
    version = "V1" if net.layers else "V2"
    notes = f"Caffe's {version} layers.", *([] if options.mean else [note])
    return to_model_file(match, layout, options, *notes)


def read_mean(path: Path, channel_order: str) -> np.ndarray:
    """Returns Caffe's mean image as float32[size, size, 3], RGB.

    Args:
      path: the .binaryproto file.
      channel_order: "bgr" or "rgb": of the file.

    Raises:
      InputError: it is something else.
    """
    try:
        return mean_image(_array(_parse(_BLOB, path), "its data"), "CHW", channel_order)
    except InputError as error:
        raise InputError(f"cannot be used with {path}, which {error}") from error


# ---- Messages


def _parse(message_class: Any, path: Path) -> Any:
    """Returns the message of a file."""
    try:
        return message_class.FromString(path.read_bytes())
    except message.DecodeError as error:
        raise InputError("is damaged: it is not a protobuf message.") from error


def _name(layer: Any) -> str:
    return repr(layer.name.decode(errors="replace")[:50])


def _type_name(layer: Any) -> str:
    """Returns the type of a layer, which is a number in V1."""
    if isinstance(layer.type, bytes):
        return layer.type.decode(errors="replace")[:50]
    return _V1_TYPES.get(layer.type, f"{layer.type} of V1")


def _chain(layers: Sequence[Any]) -> Iterator[tuple[Any, str]]:
    """Yields the layers that compute the logits, with their types.

    Raises:
      InputError: they are not one after the other.
    """
    features = b""  # name of the output so far
    for layer in layers:
        kind, bottom, top = _type_name(layer), [*layer.bottom][:1], [*layer.top][:1]
        if kind in _PASSED:
            features = top[0] if top and bottom == [features] else features
        elif not _END.fullmatch(kind):
            if features and bottom and bottom != [features]:
                raise unsupported(f"branches, one at the layer {_name(layer)}")
            features = top[0] if top else b""
            yield layer, kind


def _array(blob: Any, name: str) -> np.ndarray:
    """Returns the array of a blob; in old files, its shape is four fields."""
    shape = blob.shape.dim if blob.HasField("shape") else ()
    if not blob.HasField("shape"):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    data, dtype = (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")
    content = data[0] if len(data) == 1 else b"".join(data)
    if min(shape, default=1) < 1 or len(content) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise InputError(f"is damaged: {name} has {len(content)} bytes for {list(shape)}.")
    try:
        return np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:  # too many dimensions
        raise InputError(f"is damaged: {name} ({error}).") from error


def _arrays(layer: Any) -> dict[str, np.ndarray]:
    """Returns the blobs of a layer by names such as conv1[0]."""
    names = [f"{layer.name.decode(errors='replace')[:50]}[{i}]" for i in range(len(layer.blobs))]
    return {name: _array(blob, name) for name, blob in zip(names, layer.blobs, strict=True)}


# ---- Layers


def _side(layer: Any, parameter: Any, field: str, short: str, default: int) -> int:
    """Returns a field that is the same for height and width.

    Args:
      layer: for messages.
      parameter: of the layer.
      field: its name, such as "kernel_size", whose value may be given once or twice.
      short: its name in the fields for height and width, such as "kernel" in "kernel_h".
      default: if neither is given.
    """
    values = {*getattr(parameter, field)}
    if parameter.HasField(f"{short}_h") or parameter.HasField(f"{short}_w"):
        values |= {getattr(parameter, f"{short}_h"), getattr(parameter, f"{short}_w")}
    if len(values) > 1:
        raise unsupported(f"windows in {_name(layer)} that are not square, {sorted(values)}")
    return values.pop() if values else default


def _add_convolution(graph: Graph, layer: Any) -> None:
    convolution = layer.convolution_param
    if {*convolution.dilation} - {1}:
        raise unsupported(f"a dilated convolution, {_name(layer)}")
    graph.add_conv(
        _name(layer),
        _arrays(layer),
        features=convolution.num_output,
        kernel_size=_side(layer, convolution, "kernel_size", "kernel", 0),
        stride=_side(layer, convolution, "stride", "stride", 1),
        padding=_side(layer, convolution, "pad", "pad", 0),
        groups=convolution.group,
    )


def _add_dense(graph: Graph, layer: Any) -> None:
    arrays = _arrays(layer)
    if layer.inner_product_param.transpose:
        kernel = next(iter(arrays), "")
        arrays = {**arrays, kernel: arrays[kernel].T} if kernel else arrays
    graph.add(Dense, _name(layer), arrays, features=layer.inner_product_param.num_output)


def _add_lrn(graph: Graph, layer: Any) -> None:
    norm = layer.lrn_param
    if norm.norm_region:
        raise unsupported(f"a response norm within channels, {_name(layer)}")
    graph.add_lrn(_name(layer), norm.local_size, norm.alpha, norm.beta, norm.k)


def _add_pool(graph: Graph, layer: Any) -> None:
    pool, name = layer.pooling_param, _name(layer)
    kinds = {0: "max", 1: "average"}
    if _side(layer, pool, "pad", "pad", 0) or pool.global_pooling or pool.pool not in kinds:
        raise unsupported(f"global, padded or stochastic pooling, {name}")
    graph.add_pool(
        name,
        kind=kinds[pool.pool],
        window=_side(layer, pool, "kernel_size", "kernel", 0),
        stride=_side(layer, pool, "stride", "stride", 1),
        ceil_mode=not pool.round_mode,
    )


def _add_relu(graph: Graph, layer: Any) -> None:
    if layer.relu_param.negative_slope:
        raise unsupported(f"a leaky ReLU, {_name(layer)}")
    graph.add(Activation, _name(layer))


_ADD: Mapping[str, Callable[[Graph, Any], None]] = {
    "Convolution": _add_convolution,
    "InnerProduct": _add_dense,
    "LRN": _add_lrn,
    "Pooling": _add_pool,
    "ReLU": _add_relu,
}

# ---- Preprocessing


def _input_size(net: Any, layers: Sequence[Any]) -> int:
    """Returns the size of the network's input: the crop of its data, or a declared shape."""
    crops = [x.transform_param.crop_size for x in layers if x.transform_param.crop_size]
    shapes = [list(shape.dim) for x in net.layer for shape in x.input_param.shape]
    shapes += [list(shape.dim) for shape in net.input_shape] + [list(net.input_dim)]
    heights = [shape[2] for shape in shapes if len(shape) == 4]
    return (crops or heights or [_INPUT_SIZE])[0]


def _pixels(layers: Sequence[Any], order: str) -> tuple[dict[str, Any], str]:
    """Returns the preprocessing, as {config key: value}, and a sentence on the mean."""
    pixels = dict(CAFFE_PIXELS)
    transform = next((x.transform_param for x in layers if x.HasField("transform_param")), None)
    if transform is not None and transform.scale != 1:
        pixels["augment.scale"] = float(str(np.float32(transform.scale)))
    if transform is None or not transform.mean_value:
        note = "The file has no mean; ImageNet's mean color is assumed. Set weights.mean to a "
        return pixels, f"{note}mean image."
    values = [float(str(np.float32(x))) for x in transform.mean_value]
    values = values * 3 if len(values) == 1 else values
    pixels["augment.channel_mean"] = tuple(values[::-1] if order == "bgr" else values)
    return pixels, "The mean color is that of the file."
