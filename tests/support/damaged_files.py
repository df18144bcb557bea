"""Narrow models in every format, ways to damage their files, and independent readers of them.

A sample that has no reader has checksums: its arrays are the original ones, or none. Nothing here
uses this package to read.
"""

import collections
import dataclasses
import io
import json
import math
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import caffe_numpy
import msgpack
import narrow_models
import npy_files
import numpy as np
import onnx
import onnx_models
import orbax.checkpoint as ocp
import safetensors.numpy
import tensorstore
import torch_archive
from flax import serialization
from narrow_models import CAFFE, TORCHVISION, Arrays
from onnx import numpy_helper

from alexnet_jax import weights
from alexnet_jax.weights import ModelFile

Params = dict[str, dict[str, np.ndarray]]

WIDTHS = (4, 6, 8, 6, 4)
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
PARAMETERS = {"weight": "kernel", "bias": "bias"}
RGB = narrow_models.make_arrays(TORCHVISION._replace(widths=WIDTHS))
BGR = narrow_models.make_arrays(CAFFE._replace(widths=WIDTHS))
MEAN = np.random.default_rng(5).uniform(90, 130, (3, 24, 24)).astype(np.float32)  # BGR planes


def params_of(arrays: Arrays, channels: int = 1) -> Params:
    """Returns this package's parameters of arrays in the order of PyTorch and Caffe.

    Args:
      arrays: {"conv1.weight": ...}.
      channels: step through the input channels of conv1; -1 of BGR images.
    """
    params: Params = {}
    for name, array in arrays.items():
        layer, _, kind = name.partition(".")
        if kind == "weight" and layer.startswith("conv"):
            array = array.transpose(2, 3, 1, 0)[:, :, :: channels if layer == "conv1" else 1]
        elif kind == "weight":
            if layer == "fc6":
                maps = array.reshape(len(array), -1, 6, 6)
                array = maps.transpose(0, 2, 3, 1).reshape(len(array), -1)
            array = array.T
        with np.errstate(all="ignore"):
            params.setdefault(layer, {})[PARAMETERS[kind]] = np.array(array, np.float32)
    return params


# ---- Damage


def damaged(content: bytes, rng: np.random.Generator) -> tuple[bytes, str]:
    """Returns other bytes, and what was done to them."""
    kinds = (_truncated, _flipped, _overwritten, _duplicated, _moved, _removed)
    change = kinds[rng.integers(len(kinds))]
    result = change(content, rng)
    return (result, change.__name__) if result != content else damaged(content, rng)


def _span(content: bytes, rng: np.random.Generator) -> tuple[int, int]:
    """Returns a start and an end; short spans are as frequent as long ones."""
    length = min(len(content), int(2 ** rng.uniform(0, math.log2(len(content) + 1))))
    start = _offset(content, rng)
    return start, min(len(content), start + length)


def _offset(content: bytes, rng: np.random.Generator) -> int:
    """Returns an offset; every second is near the start or the end, where the structure is."""
    near = int(2 ** rng.uniform(0, math.log2(len(content))))
    return (near, len(content) - near, *rng.integers(len(content), size=2))[rng.integers(4)]


def _truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: _offset(content, rng)]


def _flipped(content: bytes, rng: np.random.Generator) -> bytes:
    result = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        result[min(_offset(content, rng), len(result) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(result)


def _overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    fillings = (bytes(end - start), b"\xff" * (end - start), rng.bytes(end - start))
    return content[:start] + fillings[rng.integers(3)] + content[end:]


def _duplicated(content: bytes, rng: np.random.Generator) -> bytes:
    (start, end), at = _span(content, rng), _offset(content, rng)
    at = (end, at)[rng.integers(2)]
    return content[:at] + content[start:end] + content[at:]


def _moved(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    middle = int(rng.integers(start, end + 1))
    return content[:start] + content[middle:end] + content[start:middle] + content[end:]


def _removed(content: bytes, rng: np.random.Generator) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


# ---- PyTorch


class _TorchUnpickler(pickle.Unpickler):
    """Gives (storage key, offset, shape, strides) for each tensor."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" == "collections.OrderedDict":
            return collections.OrderedDict
        if f"{module}.{name}" == "torch._utils._rebuild_tensor_v2":
            return lambda *arguments: arguments[:4]
        assert f"{module}.{name}" == "torch.FloatStorage"
        return None

    def persistent_load(self, pid: Any) -> str:
        return pid[2]


def read_torch_stream(path: Path) -> Params:
    """Returns the parameters in PyTorch's older stream of float32 tensors."""
    file = io.BytesIO(path.read_bytes())
    for _ in range(3):
        pickle.load(file)
    saved = _TorchUnpickler(file).load()
    storages = {}
    for key in pickle.load(file):
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(4 * count), "<f4")
    arrays = {}
    for name, (key, offset, shape, strides) in saved.items():
        grid = np.indices(shape)
        steps = sum(axis * stride for axis, stride in zip(grid, strides, strict=True))
        arrays[name] = storages[key][offset + steps]
    return _by_prefix(arrays)


def _by_prefix(arrays: Arrays) -> Params:
    layers = {prefix: layer for layer, prefix in narrow_models.torchvision_prefixes().items()}
    return params_of(
        {
            f"{layers[prefix + '.']}.{kind}": array
            for (prefix, _, kind), array in ((x.rpartition("."), y) for x, y in arrays.items())
        }
    )


# ---- safetensors, Flax, Orbax


def read_safetensors(path: Path) -> Params:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    arrays = {}
    for name, tensor in json.loads(content[8:start]).items():
        if name != "__metadata__":
            dtype = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[tensor["dtype"]]
            first, last = (start + offset for offset in tensor["data_offsets"])
            arrays[name] = np.frombuffer(content[first:last], dtype).reshape(tensor["shape"])
    return _by_prefix(arrays)


def read_flax(path: Path) -> Params:
    def array(code: int, data: bytes) -> np.ndarray:
        assert code == 1
        shape, dtype, buffer = msgpack.unpackb(data, raw=False)
        with np.errstate(all="ignore"):
            return np.frombuffer(buffer, dtype).reshape(shape).astype(np.float32)

    tree = msgpack.unpackb(path.read_bytes(), ext_hook=array, raw=False, strict_map_key=False)
    return tree.get("params", tree)


def write_orbax(path: Path) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, params_of(RGB))


def read_orbax(path: Path) -> Params:
    params: Params = {}
    for layer in LAYERS:
        for parameter in ("kernel", "bias"):
            kvstore = {"driver": "ocdbt", "base": f"file://{path}", "path": f"{layer}.{parameter}/"}
            array = tensorstore.open({"driver": "zarr", "kvstore": kvstore}).result()
            params.setdefault(layer, {})[parameter] = array.read().result()
    return params


# ---- npy


class _NpyUnpickler(pickle.Unpickler):
    """Gives arrays only if all of their state is what numpy writes."""

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == "_codecs.encode":
            return lambda text, _: text.encode("latin1")
        if full == "numpy.dtype":
            return _Dtype
        if full == "numpy.ndarray":
            return None
        assert full in (
            "numpy._core.multiarray._reconstruct",
            "numpy.core.multiarray._reconstruct",
        )
        return lambda *arguments: _Array()


class _Dtype:
    def __init__(self, code: str, align: Any, copy: Any):
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *rest, _ = state  # version and flags say nothing about the numbers
        assert rest == [None, None, None, -1, -1]
        self.code = self.code if self.code == "O8" else order + self.code


class _Array:
    content: Any

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        version, shape, dtype, fortran, content = state
        assert version in (0, 1)
        self.content = content
        if dtype.code != "O8":
            content = content.encode("latin1") if isinstance(content, str) else content
            order = "F" if fortran else "C"
            self.content = np.frombuffer(content, dtype.code).reshape(shape, order=order)


def guerzhoy() -> npy_files.Layers:
    """Returns {layer: [kernel, bias]}, convolutions HWIO for BGR images."""
    params = params_of(BGR)
    return {layer: [params[layer]["kernel"], params[layer]["bias"]] for layer in LAYERS}


def read_npy(path: Path) -> Params:
    file = io.BytesIO(path.read_bytes())
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    saved = _NpyUnpickler(file, encoding="latin1").load().content[0]
    params: Params = {}
    for name, arrays in saved.items():
        name = name.decode() if isinstance(name, bytes) else name
        kernel, bias = sorted((x.content for x in arrays), key=lambda x: -x.ndim)
        kernel = kernel[:, :, ::-1] if name == "conv1" else kernel
        params[name] = {"kernel": kernel.astype("f4"), "bias": bias.astype("f4")}
    return params


# ---- Caffe


Fields = dict[tuple[int, int], list[Any]]


def fields(content: bytes) -> Fields:
    """Returns {(number, wire type): values} of a protobuf message."""
    found: Fields = {}
    file = io.BytesIO(content)
    while file.tell() < len(content):
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        lengths = {1: 8, 5: 4}
        assert number
        if wire == 0:
            value: Any = _varint(file)
        else:
            length = lengths[wire] if wire != 2 else _varint(file)
            value = file.read(length)
            assert len(value) == length
        found.setdefault((number, wire), []).append(value)
    return found


def _varint(file: io.BytesIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)[0]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1)
    raise ValueError("a long number")


def _blob(content: bytes) -> np.ndarray:
    found = fields(content)
    if (7, 2) in found:
        shape = [n for part in _merged(found, 7).get((1, 2), []) for n in _packed(part)]
        shape += _merged(found, 7).get((1, 0), [])
    else:
        shape = [found[number, 0][-1] for number in (1, 2, 3, 4)]
    double = b"".join(found.get((8, 2), []))
    data = double or b"".join(found.get((5, 2), []))
    with np.errstate(all="ignore"):
        return np.frombuffer(data, "<f8" if double else "<f4").reshape(shape).astype(np.float32)


def _merged(message: Fields, number: int) -> Fields:
    """Returns the message in a field, whose repetitions are one."""
    return fields(b"".join(message.get((number, 2), [])))


def _packed(content: bytes) -> Iterator[int]:
    file = io.BytesIO(content)
    while file.tell() < len(content):
        yield _varint(file)


def read_caffe(path: Path) -> Params:
    net = fields(path.read_bytes())
    layers = []
    for message in map(fields, net.get((2, 2), [])):
        kind = {4: "Convolution", 14: "InnerProduct"}.get(message.get((5, 0), [0])[-1])
        layers.append((kind, message.get((6, 2), []), _merged(message, 17)))
    for message in map(fields, net.get((100, 2), [])):
        kind = message.get((2, 2), [b""])[-1].decode("latin1")
        layers.append((kind, message.get((7, 2), []), _merged(message, 117)))
    weighted = [x for x in layers if x[0] in ("Convolution", "InnerProduct")]
    arrays = {}
    for layer, (kind, (kernel, bias), product) in zip(LAYERS, weighted, strict=True):
        array = _blob(kernel)
        if kind == "InnerProduct":
            array = array.reshape(array.shape[-2:])
            array = array.T if product.get((6, 0), [0])[-1] else array
        arrays |= {f"{layer}.weight": array, f"{layer}.bias": _blob(bias).reshape(-1)}
    return params_of(arrays, -1)


def caffe_arrays() -> caffe_numpy.Arrays:
    return {layer: (BGR[f"{layer}.weight"], BGR[f"{layer}.bias"]) for layer in LAYERS}


def write_caffe(style: caffe_numpy.Style) -> Callable[[Path], Any]:
    network = caffe_numpy.network(widths=WIDTHS)
    return lambda path: path.write_bytes(caffe_numpy.encode(network, caffe_arrays(), style))


def read_mean(path: Path) -> Params:
    mean = _blob(path.with_name("mean").read_bytes())
    return {"mean": {"": mean.reshape(mean.shape[-3:])[::-1].transpose(1, 2, 0)}}


# ---- ONNX


def bvlc() -> onnx.ModelProto:
    return onnx_models.bvlc_alexnet(caffe_arrays())


def write_external(path: Path) -> None:
    onnx.save(bvlc(), path, save_as_external_data=True, location="model.data", size_threshold=0)


def read_onnx(path: Path) -> Params:
    graph = onnx.load(path, load_external_data=False).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    weighted = {x.output[0]: x for x in graph.node if x.op_type in ("Conv", "Gemm")}
    arrays = {}
    for layer, node in zip(LAYERS, weighted.values(), strict=True):
        kernel, bias = (_tensor(tensors[name], path.parent) for name in node.input[1:])
        transposed = any(x.name == "transB" and x.i for x in node.attribute)
        kernel = kernel.T if node.op_type == "Gemm" and not transposed else kernel
        arrays |= {f"{layer}.weight": kernel, f"{layer}.bias": bias}
    return params_of(arrays, -1)


def _tensor(tensor: onnx.TensorProto, folder: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unknown keys
        if tensor.data_location:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
    return numpy_helper.to_array(tensor)


def read_own_onnx(path: Path) -> Params:
    stored = {x.name: numpy_helper.to_array(x) for x in onnx.load(path).graph.initializer}
    names = {f"{x}.{y}": f"{x}/{z}" for x in LAYERS for y, z in PARAMETERS.items()}
    return params_of({name: stored[own] for name, own in names.items()})


# ---- The samples


class Sample(NamedTuple):
    """A file of a format.

    Attributes:
      write: writes it to a path.
      read: returns the parameters that a damaged one holds; None: those of the undamaged one.
      options: of `weights.read`.
      damaged: pattern of the files to damage, one at a time.
      compared: the parameters of what was read, or more.
    """

    write: Callable[[Path], Any]
    read: Callable[[Path], Params] | None
    options: dict[str, Any] = {}  # noqa: RUF012
    damaged: str = "model"
    compared: Callable[[ModelFile], Params] = lambda found: found.params


def _torch(encode: Callable[[Arrays], bytes]) -> Callable[[Path], Any]:
    arrays = narrow_models.renamed(RGB, narrow_models.torchvision_prefixes())
    return lambda path: path.write_bytes(encode(arrays))


def _write_npz(save: Callable[..., None]) -> Callable[[Path], Any]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            params = params_of(RGB).items()
            save(file, **{f"{x}/{y}": array for x, layer in params for y, array in layer.items()})

    return write


def _write_flax(path: Path) -> None:
    path.write_bytes(serialization.to_bytes({"params": params_of(RGB), "step": 3}))


def _write_mean(path: Path) -> None:
    write_caffe(caffe_numpy.Style(2))(path)
    path.with_name("mean").write_bytes(caffe_numpy.mean_file(MEAN))


def mean_of(found: ModelFile) -> Params:
    assert found.mean is not None
    return {"mean": {"": found.mean}}


def everything(found: ModelFile) -> Params:
    return {**found.params, **mean_of(found)}


def _write_own(format: str, with_mean: bool = True) -> Callable[[Path], Any]:
    """Returns what writes a file of this package, with metadata and a mean image."""
    layers = {f"conv{i}": width for i, width in enumerate(WIDTHS, 1)} | {"fc6": 20, "fc7": 24}
    config = {f"model.layers.{layer}.features": width for layer, width in layers.items()}
    config |= {"model.name": "torchvision", "model.num_classes": narrow_models.CLASSES}
    model_file = ModelFile(config, params_of(RGB))
    if with_mean:
        config["augment.mean"] = "image_at_crop"
        model_file = dataclasses.replace(model_file, mean=MEAN.transpose(1, 2, 0))
    return lambda path: weights.write(path, format, model_file)


TORCHVISION_MODEL = {"model": "torchvision"}
BGR_IMAGES = {"channel_order": "bgr"}  # which is a guess by the constants of the norms
SAMPLES = {
    "torch archive": Sample(_torch(torch_archive.archive_of), None),
    "torch stream": Sample(_torch(torch_archive.stream_of), read_torch_stream),
    "safetensors": Sample(_torch(safetensors.numpy.save), read_safetensors),
    "npz": Sample(_write_npz(np.savez), None, TORCHVISION_MODEL),
    "npz compressed": Sample(_write_npz(np.savez_compressed), None, TORCHVISION_MODEL),
    "npy": Sample(lambda path: path.write_bytes(npy_files.npy(guerzhoy())), read_npy),
    "npy protocol 0": Sample(lambda path: path.write_bytes(npy_files.npy(guerzhoy(), 0)), read_npy),
    "npy of Python 2": Sample(
        lambda path: path.write_bytes(npy_files.python_2(guerzhoy())), read_npy
    ),
    "caffe V1": Sample(write_caffe(caffe_numpy.Style(1, legacy_dims=True)), read_caffe),
    "caffe V2": Sample(write_caffe(caffe_numpy.Style(2)), read_caffe),
    "caffe doubles": Sample(write_caffe(caffe_numpy.Style(2, double=True)), read_caffe),
    "onnx": Sample(
        lambda path: path.write_bytes(bvlc().SerializeToString()), read_onnx, BGR_IMAGES
    ),
    "onnx of two files": Sample(write_external, read_onnx, BGR_IMAGES),
    "onnx data": Sample(write_external, read_onnx, BGR_IMAGES, "model.data"),
    "binaryproto": Sample(_write_mean, read_mean, {"mean": "mean"}, "mean", mean_of),
    "own npz": Sample(_write_own("npz"), None, compared=everything),
    "own safetensors": Sample(_write_own("safetensors"), read_safetensors),
    "own onnx": Sample(_write_own("onnx", False), read_own_onnx),
    "orbax": Sample(write_orbax, read_orbax, TORCHVISION_MODEL, "model/**/*"),
    "flax": Sample(_write_flax, read_flax, TORCHVISION_MODEL),
}
