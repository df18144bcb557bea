"""Small files that say they hold very much: each would take all memory of a trusting reader."""

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_numpy
import damaged_files
import msgpack
import numpy as np
import onnx
import tensorstore
import torch_archive
from onnx import TensorProto, helper

HUGE = 2**40
SIDE = 2**20


def _npy(shape: str) -> bytes:
    file = io.BytesIO()
    np.save(file, np.zeros(3, np.float32))
    return file.getvalue().replace(b"(3,), }" + b" " * (len(shape) - 1), f"({shape},), }}".encode())


def _zip(content: bytes, declared: int | None = None) -> bytes:
    """Returns an archive of one member, which may declare to unpack to another size."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conv1/kernel.npy", content)
    data = file.getvalue()
    if declared is None:
        return data
    return data.replace(struct.pack("<I", len(content)), struct.pack("<I", declared))


def _overlapping() -> bytes:
    """Returns an archive whose 200 members are the same 20 MB of zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/000.npy", bytes(20_000_000))
        (info,) = archive.filelist
        archive.filelist += [info] * 199
    return file.getvalue()


def _stream(count: int) -> bytes:
    storage = torch_archive.tensor("0", ("FloatStorage", count), (3,), (1,), legacy=True)
    content = torch_archive.stream(
        torch_archive.state_dict({"features.0.bias": storage}), [np.zeros(3, np.float32)]
    )
    return content.replace(struct.pack("<q", 3), struct.pack("<q", count))


def _repeated_tensor() -> bytes:
    """Returns an archive with a tensor that repeats one number."""
    tensor = torch_archive.tensor("0", ("FloatStorage", 1), (SIDE, SIDE), (0, 0))
    return torch_archive.archive(torch_archive.state_dict({"features.0.bias": tensor}), [bytes(4)])


def _safetensors(shape: list[int], end: int, length: int | None = None) -> bytes:
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}
    header = json.dumps({"features.0.bias": tensor}).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + bytes(12)


def _caffe(dims: list[int]) -> bytes:
    shape = b"".join(map(caffe_numpy.varint, dims))
    blob = caffe_numpy.data(7, caffe_numpy.data(1, shape)) + caffe_numpy.data(5, bytes(12))
    layer = caffe_numpy.data(1, b"conv1") + caffe_numpy.data(2, b"Convolution")
    layer += caffe_numpy.data(7, blob)
    layer += caffe_numpy.data(106, caffe_numpy.number(1, 8) + caffe_numpy.number(4, 11))
    return caffe_numpy.data(1, b"net") + caffe_numpy.data(100, layer)


def _onnx(tensors: list[TensorProto], times: int = 1) -> bytes:
    """Returns a model of dense layers, with each tensor some times."""
    names = [tensor.name for tensor in tensors] * times
    nodes = [helper.make_node("Gemm", [f"x{i}", x], [f"x{i + 1}"]) for i, x in enumerate(names)]
    first = helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 3, 224, 224])
    last = helper.make_tensor_value_info(f"x{len(names)}", TensorProto.FLOAT, [1, 5])
    graph = helper.make_graph(nodes, "graph", [first], [last], tensors)
    return helper.make_model(graph, ir_version=8).SerializeToString()


def _onnx_of_two_files(path: Path) -> None:
    """900 arrays are the same 4 MB of another file."""
    entry = onnx.StringStringEntryProto(key="location", value="model.data")
    options: dict[str, Any] = {"data_type": TensorProto.FLOAT, "data_location": 1}
    tensors = [
        TensorProto(name=f"w{i}", dims=[1000, 1000], external_data=[entry], **options)
        for i in range(900)
    ]
    path.with_name("model.data").write_bytes(bytes(4_000_000))
    path.write_bytes(_onnx(tensors))


def _flax(declared: bytes) -> bytes:
    tree = {"params": {"conv1": {"kernel": 1, "bias": 2}}}
    return msgpack.packb(tree).replace(b"\xa4bias\x02", b"\xa4bias" + declared)


def _flax_array(shape: list[int]) -> bytes:
    return msgpack.packb(msgpack.ExtType(1, msgpack.packb((shape, "float32", bytes(12)))))


def _orbax(path: Path) -> None:
    """An array without chunks, all of whose numbers are zeros by definition."""
    damaged_files.write_orbax(path)
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "ocdbt", "base": f"file://{path}", "path": "fc8.bias/"},
        "metadata": {"shape": [HUGE], "chunks": [SIDE], "dtype": "<f4", "fill_value": 0},
    }
    tensorstore.open(spec, create=True, delete_existing=True).result()


def _contents() -> dict[str, bytes]:
    array = helper.make_tensor("w", TensorProto.FLOAT, [1000, 1000], bytes(4_000_000), raw=True)
    short = TensorProto(name="w", dims=[SIDE, SIDE], data_type=1, raw_data=bytes(12))
    return {
        "npz, shape": _zip(_npy(str(HUGE))),
        "npz, size of a member": _zip(_npy("3"), 2**32 - 2),
        "npz, overlapping members": _overlapping(),
        "torch stream": _stream(2**31 - 1),
        "torch strides": _repeated_tensor(),
        "safetensors, shape": _safetensors([HUGE], 4 * HUGE),
        "safetensors, few bytes": _safetensors([HUGE], 12),
        "safetensors, header": _safetensors([3], 12, 2**32 - 1),
        "caffe": _caffe([SIDE, SIDE]),
        "caffe, no numbers": _caffe([SIDE, 0, SIDE]),
        "onnx": _onnx([short]),
        "onnx, one array in all layers": _onnx([array], 900),
        "flax, shape": _flax(_flax_array([SIDE, SIDE])),
        "flax, list": _flax(b"\xdd\xff\xff\xff\xff"),
        "flax, bytes": _flax(b"\xc6\xff\xff\xff\xff"),
    }


def write_all(folder: Path) -> list[Path]:
    """Returns the paths of the files, each in a folder of its own."""
    writers: dict[str, Callable[[Path], Any]] = {
        name: lambda path, content=content: path.write_bytes(content)
        for name, content in _contents().items()
    }
    writers |= {"onnx of two files": _onnx_of_two_files, "orbax": _orbax}
    paths = []
    for name, write in writers.items():
        (folder / name).mkdir()
        paths.append(folder / name / "model")
        write(paths[-1])
    return paths
