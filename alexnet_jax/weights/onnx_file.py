"""ONNX: the zoo's bvlcalexnet, models that PyTorch exported, and those of this package.

Array names carry no meaning in files of other programs: the operations are followed from the output
back to the input, and each gives its fields and arrays.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from alexnet_jax.errors import InputError
from alexnet_jax.models.layers import Activation, Conv, Dense
from alexnet_jax.weights import torch_file
from alexnet_jax.weights.graph import Graph, Match, find_model, to_model_file, unsupported
from alexnet_jax.weights.layout import CAFFE_PIXELS, TORCHVISION_PIXELS, Layout
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_INPUT_SIZE = 224  # of files that do not declare it
_PASSED = {"Dropout", "Identity"}
_FLATTENING = {"Flatten", "Reshape"}  # in the order of the features; only dense layers may follow
_SPATIAL = {"AveragePool", "Conv", "Div", "LRN", "MaxPool"}
_PROBABILITIES = {"LogSoftmax", "Softmax"}
_CONSTANT = {"Identity", "Transpose"}  # what may be between an array and its use
_DEPTH = 8  # of such nodes
# Raised by attributes of another type, and by invalid text
_DAMAGED = (DecodeError, AttributeError, LookupError, OverflowError, TypeError, ValueError)


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file begins like a ModelProto: with its version, then another field."""
    later = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42, 0x72)  # tags of fields 2 to 8, and of 14
    return len(head) > 2 and head[0] == 0x08 and head[1] < 0x80 and head[2] in later


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads a model, whose arrays may be in other files of its folder.

    Raises:
      InputError: it is damaged, or not a model of this package.
    """
    try:
        return _read(path, options)
    except _DAMAGED as error:
        raise InputError(f"is damaged: {error!r:.200}") from error


def write_file(path: Path, model_file: ModelFile) -> None:
    """Writes any model whose layers ONNX has, with the preprocessing of pixels in 0..255.

    Raises:
      InputError: there are no operators for a layer.
    """
    from alexnet_jax.weights import onnx_graph

    path.write_bytes(onnx_graph.to_onnx(model_file).SerializeToString())


def _read(path: Path, options: ReadOptions) -> ModelFile:
    """Returns the model of a file; raises one of _DAMAGED for a damaged file."""
    import onnx  # here, as it takes 0.1 s

    from alexnet_jax.weights import onnx_graph

    proto = onnx.ModelProto.FromString(path.read_bytes())
    nodes = _Nodes(proto.graph, path.parent)
    for entry in proto.metadata_props:
        if entry.key == onnx_graph.METADATA:
            return onnx_graph.from_onnx(nodes.stored(), entry.value, options)
    graph = _read_graph(nodes)
    match = find_model(graph, options.model)
    layout = _layout(match, graph.input_size)
    notes = (
        f"ONNX written by {proto.producer_name[:50] or 'an unknown program'}.",
        f"The file does not store its preprocessing; that of {layout.name} is assumed.",
        *nodes.notes,
    )
    return to_model_file(match, layout, options, *notes)


def _read_graph(nodes: "_Nodes") -> Graph:
    """Returns the operations of a file."""
    graph, flat = Graph(nodes.input_size()), False
    for node in nodes.chain():
        flat = flat or node.op_type in _FLATTENING
        if node.op_type in _FLATTENING or node.op_type in _PASSED:
            continue
        if node.op_type not in _ADD or (flat and node.op_type in _SPATIAL):
            raise _unknown(node)
        _ADD[node.op_type](graph, nodes, node)
    return graph


def _unknown(node: Any) -> InputError:
    """Returns the error for a node that is unknown, or unknown where it is."""
    return unsupported(f"the operation {node.op_type[:50]} at {_name(node)}")


def _layout(match: Match, input_size: int) -> Layout:
    """Returns the layout of a file of another program, with the usual preprocessing.

    A model with Caffe's groups and norms is assumed to be trained by Caffe: on BGR images resized
    to 256 x 256, minus their mean color. Others are assumed to be trained like torchvision's, or
    like the half-width model of tutorials.
    """
    changed = " ".join(match.config)
    if match.model in ("caffe", "caffenet") and "norm" not in changed and "groups" not in changed:
        pixels = {**CAFFE_PIXELS, "data.image_size": max(256, input_size)}
        return Layout("Caffe in ONNX", match.model, {}, pixels, channel_order="bgr")
    widths = [x.fields["features"] for _, x in match.pairs if x.kind is Conv]
    if widths == torch_file.HALF_WIDTHS and input_size == 224:
        return torch_file.HALF
    pixels = {**TORCHVISION_PIXELS, "data.image_size": round(input_size * 256 / 224)}
    return Layout("PyTorch in ONNX", match.model, {}, pixels)


class _Nodes:
    """The nodes of a graph by the names of their outputs, and its arrays.

    Attributes:
      notes: a sentence if there are arrays in other files.
    """

    def __init__(self, graph: Any, folder: Path) -> None:
        self._graph = graph
        self._content = functools.cache(functools.partial(_content, folder))
        self._arrays: dict[str, np.ndarray] = {}  # by name, as many nodes may have the same
        self._producers = {name: node for node in graph.node for name in node.output}
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._inputs = {x.name: x for x in graph.input if x.name not in self._tensors}
        others = sorted({_location(x) for x in graph.initializer if x.data_location} - {""})
        listed = ", ".join(others)[:200]
        self.notes = [f"Weights in {listed}, which the sha256 does not cover."] if others else []

    def chain(self) -> list[Any]:
        """Returns the nodes from the input to the logits, in order."""
        name = self._graph.output[0].name if self._graph.output else ""
        chain: list[Any] = []
        for _ in range(len(self._graph.node)):
            node = self._producers.get(name)
            if node is None or not node.input:
                break
            if chain or node.op_type not in _PROBABILITIES:
                chain.append(node)
            swapped = node.op_type == "Add" and self.find_constant(node.input[0]) is not None
            name = node.input[-1 if swapped else 0]
        if name not in self._inputs:
            raise unsupported("a first output that is not the end of a chain of operations")
        return chain[::-1]

    def input_size(self) -> int:
        """Returns the height and width of the input."""
        shapes = [x.type.tensor_type.shape.dim for x in self._inputs.values()]
        sizes = {dim.dim_value for dims in shapes[:1] for dim in dims[2:4]} - {0}
        if len(sizes) > 1:
            raise unsupported(f"images that are not square, {sorted(sizes)}")
        return sizes.pop() if sizes else _INPUT_SIZE

    def producer(self, name: str, op_type: str) -> Any:
        """Returns the node of an output, which must be of a type."""
        node = self._producers.get(name)
        if node is None or node.op_type != op_type:
            raise unsupported(f"no {op_type} at {name[:50]!r}, which a response norm needs")
        return node

    def producers_of(self, name: str, until: str) -> Iterator[Any]:
        """Yields all nodes between two features."""
        names, seen = [name], {until}
        while names:
            name = names.pop()
            node = None if name in seen else self._producers.get(name)
            seen.add(name)
            if node is not None:
                names.extend(node.input)
                yield node

    def constant(self, name: str) -> np.ndarray:
        """Returns the array that an input is; see `find_constant`.

        Raises:
          InputError: it is none.
        """
        array = self.find_constant(name)
        if array is None:
            raise unsupported(f"{name[:50]!r} where a constant is expected")
        return array

    def find_constant(self, name: str, depth: int = _DEPTH) -> np.ndarray | None:
        """Returns the array of the file that an input is, maybe transposed on its way, or None."""
        node, tensor = self._producers.get(name), self._tensors.get(name)
        if node is not None and node.op_type == "Constant":
            tensor = tensor or _attributes(node).get("value")
        if tensor is not None:
            if name not in self._arrays:
                self._arrays[name] = _array(tensor, self._content)
            return self._arrays[name]
        if node is None or node.op_type not in _CONSTANT or not node.input or not depth:
            return None
        array = self.find_constant(node.input[0], depth - 1)
        if array is None or node.op_type == "Identity":
            return array
        return array.transpose(_attributes(node).get("perm"))

    def stored(self) -> dict[str, np.ndarray]:
        """Returns all arrays by name."""
        return {name: _array(tensor, self._content) for name, tensor in self._tensors.items()}


def _attributes(node: Any) -> dict[str, Any]:
    from onnx import helper

    return {x.name: helper.get_attribute_value(x) for x in node.attribute}


# ---- Arrays


def _location(tensor: Any) -> str:
    return next((x.value for x in tensor.external_data if x.key == "location"), "")


def _content(folder: Path, location: str) -> np.ndarray:
    """Returns the bytes of a file, mapped: all of its arrays share the memory."""
    path = folder / location
    if Path(location).name != location or not path.is_file():
        raise InputError(f"needs the file {location[:200]!r} next to it, for its weights.")
    return np.memmap(path, np.uint8, "r")


def _array(tensor: Any, content_of: Callable[[str], np.ndarray]) -> np.ndarray:
    """Returns the array of a tensor, given what returns the content of another file."""
    from onnx import numpy_helper

    if tensor.data_location:
        return _array_outside(tensor, content_of)
    array = np.asarray(numpy_helper.to_array(tensor))
    if list(array.shape) != list(tensor.dims):
        raise InputError(f"is damaged: the array {tensor.name[:50]!r} does not match its shape.")
    return array


def _array_outside(tensor: Any, content_of: Callable[[str], np.ndarray]) -> np.ndarray:
    """Returns the array of a tensor whose bytes are in another file."""
    from onnx import helper

    options, location = {x.key: x.value for x in tensor.external_data}, _location(tensor)
    content = content_of(location)
    start = int(options.get("offset", "0"))
    length = int(options.get("length", str(len(content) - start)))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if start < 0 or length != math.prod(tensor.dims) * dtype.itemsize:
        raise InputError(f"is damaged: the array {tensor.name[:50]!r} does not match its shape.")
    if start + length > len(content):
        raise InputError(f"is damaged: {tensor.name[:50]!r} reaches past the end of {location}.")
    return content[start : start + length].view(dtype).reshape(tuple(tensor.dims))


# ---- Operations


def _same(values: Any, default: int) -> int:
    """Returns the number that an attribute repeats for each dimension."""
    numbers = set(values or [default])
    if len(numbers) > 1:
        raise unsupported(f"a window that is not square, {sorted(numbers)}")
    return int(numbers.pop())


def _window(node: Any, kernel_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Returns the size and stride of a node's window, and the padding before and after it."""
    attributes = _attributes(node)
    _require(node, attributes, dilations=[1])
    pads = attributes.get("pads") or [0] * 4
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or len(pads) != 4:
        raise unsupported("automatic padding, or windows that are not two-dimensional")
    size = _same(attributes.get("kernel_shape") or kernel_shape, 0)
    return size, _same(attributes.get("strides"), 1), _same(pads[:2], 0), _same(pads[2:], 0)


def _require(node: Any, attributes: Mapping[str, Any], **expected: Any) -> None:
    """Raises InputError unless attributes have the expected values or are absent."""
    for name, value in expected.items():
        found = attributes.get(name, value)
        if (list(set(found)) if isinstance(found, list) else found) != value:
            raise unsupported(f"{node.op_type} at {_name(node)} with {name}={found}")


def _name(node: Any) -> str:
    return repr((node.name or node.output[0])[:50])


def _weights(nodes: _Nodes, node: Any) -> dict[str, np.ndarray]:
    return {name: nodes.constant(name) for name in node.input[1:] if name}


def _add_conv(graph: Graph, nodes: _Nodes, node: Any) -> None:
    arrays = _weights(nodes, node)
    kernel = arrays[node.input[1]]
    size, stride, padding, end = _window(node, kernel.shape[2:])
    graph.add_conv(
        _name(node),
        arrays,
        features=kernel.shape[0],
        kernel_size=size,
        stride=stride,
        padding=padding,
        end=end - padding,
        groups=_attributes(node).get("group", 1),
    )


def _add_dense(graph: Graph, nodes: _Nodes, node: Any) -> None:
    attributes, arrays = _attributes(node), _weights(nodes, node)
    _require(node, attributes, alpha=1.0, beta=1.0, transA=0)
    if not attributes.get("transB", 0):
        arrays[node.input[1]] = arrays[node.input[1]].T
    graph.add(Dense, _name(node), arrays)


def _add_bias(graph: Graph, nodes: _Nodes, node: Any) -> None:
    """Adds the bias of a matrix product, which is a separate addition."""
    name = next(x for x in node.input if nodes.find_constant(x) is not None)
    last = graph.operations[-1]
    if last.kind is not Dense or len(last.arrays) != 1:
        raise _unknown(node)
    arrays = {**last.arrays, name: nodes.constant(name)}
    graph.operations[-1] = last._replace(arrays=arrays)


def _add_pool(graph: Graph, nodes: _Nodes, node: Any) -> None:
    kind = "max" if node.op_type == "MaxPool" else "average"
    window, stride, begin, end = _window(node, ())
    ceil_mode = bool(_attributes(node).get("ceil_mode", 0))
    if (kind, window, stride, begin, end) == ("average", 1, 1, 0, 0):
        return  # adaptive pooling to the size that the maps already have
    if begin or (ceil_mode and (end or kind == "average")):
        raise unsupported(f"padding in {node.op_type} at {_name(node)}")
    fields = {"kind": kind, "window": window, "stride": stride}
    graph.add_pool(_name(node), ceil_mode=ceil_mode, end=end, **fields)


def _add_lrn(graph: Graph, nodes: _Nodes, node: Any) -> None:
    attributes = _attributes(node)
    constants = [attributes.get(x, y) for x, y in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))]
    graph.add_lrn(_name(node), attributes["size"], *constants)


def _add_division(graph: Graph, nodes: _Nodes, node: Any) -> None:
    """Adds local response normalization as PyTorch writes it.

    x / (k + alpha * mean of x**2 over a window) ** beta, the mean by pooling in three dimensions.
    """
    x, denominator = node.input
    power = nodes.producer(denominator, "Pow")
    total = nodes.producer(power.input[0], "Add")
    product = nodes.producer(total.input[0], "Mul")
    between = list(nodes.producers_of(product.input[0], x))
    pools = [_attributes(y) for y in between if y.op_type == "AveragePool"]
    squares = [y for y in between if y.op_type == "Mul" and list(y.input) == [x, x]]
    powers = [y for y in between if y.op_type == "Pow" and y.input[0] == x]
    squares += [y for y in powers if float(nodes.constant(y.input[1])) == 2]
    if len(pools) != 1 or len(squares) != 1:
        raise _unknown(node)
    size, *others = pools[0]["kernel_shape"]
    _require(node, pools[0], strides=[1], count_include_pad=1)
    if others != [1, 1] or size % 2 == 0:
        raise _unknown(node)
    scalars = (float(nodes.constant(y.input[1])) for y in (product, power, total))
    graph.add_lrn(_name(node), size, *scalars)


_ADD: Mapping[str, Callable[[Graph, _Nodes, Any], None]] = {
    "Add": _add_bias,
    "AveragePool": _add_pool,
    "Conv": _add_conv,
    "Div": _add_division,
    "Gemm": _add_dense,
    "LRN": _add_lrn,
    "MatMul": _add_dense,
    "MaxPool": _add_pool,
    "Relu": lambda graph, nodes, node: graph.add(Activation, _name(node)),
}
