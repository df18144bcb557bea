"""PyTorch's .pth, .pt and .pth.tar: zip archives since PyTorch 1.6, a stream of pickles before.

Layouts: torchvision's AlexNet, the half-width model of tutorials with the same names, and
jiecaoyu's port of Caffe's model.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.weights import archive, pickles
from alexnet_jax.weights.layout import (
    CAFFE_PIXELS,
    TORCHVISION_PIXELS,
    Layout,
    choose,
    pairs,
    to_params,
)
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa850192e")  # pickled, of the stream
_PROTOCOL = 1001
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys of training checkpoints
_PREFIX = re.compile(r"^(?:module\.)?(features\.|)(?:module\.)?")

_DTYPES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


def _names(
    convolutions: tuple[int, ...], dense: tuple[int, ...]
) -> Mapping[str, Mapping[str, str]]:
    """Returns the names of a model of two Sequentials, given the positions of its layers."""
    prefixes = {f"conv{i}": f"features.{at}." for i, at in enumerate(convolutions, 1)}
    prefixes |= {f"fc{i}": f"classifier.{at}." for i, at in enumerate(dense, 6)}
    return pairs(prefixes, "weight", "bias")


TORCHVISION = Layout(
    "torchvision", "torchvision", _names((0, 3, 6, 8, 10), (1, 4, 6)), TORCHVISION_PIXELS
)
# The "AlexNet" of many tutorials (48, 128, 192, 192, 128 channels), trained on images resized to
# 224 x 224 and scaled to -1..1.
_HALF_PIXELS = {
    "data.image_size": 224,
    "data.resize": "stretch",
    "augment.mean": "given",
    "augment.channel_mean": (127.5,) * 3,
    "augment.channel_std": (127.5,) * 3,
}
HALF = Layout("half-width torchvision", "torchvision", TORCHVISION.names, _HALF_PIXELS)
HALF_WIDTHS = [48, 128, 192, 192, 128]
# github.com/jiecaoyu/pytorch_imagenet. The file lacks its mean image; this is its mean color.
_JIECAOYU = Layout(
    "jiecaoyu's Caffe model",
    "caffe",
    _names((0, 4, 8, 10, 12), (0, 3, 6)),
    CAFFE_PIXELS,
    channel_order="bgr",
)


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file is one of PyTorch's."""
    names = archive.member_names(head, path)
    return _MAGIC in head[:32] or any(name.split("/")[-1] == "data.pkl" for name in names)


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads a state dict, plain or in a training checkpoint, without PyTorch.

    Raises:
      InputError: it is damaged, holds something else, or is refused.
    """
    with path.open("rb") as file:
        legacy = _MAGIC in file.read(32)
    saved, storages = _read_stream(path.read_bytes()) if legacy else _read_zip(path)
    arrays = {name: _array(tensor, storages) for name, tensor in _tensors(saved)}
    return to_model(arrays, options, f"PyTorch's {'older stream' if legacy else 'archive'} format.")


def to_model(arrays: Mapping[str, np.ndarray], options: ReadOptions, *notes: str) -> ModelFile:
    """Returns the model of arrays that are named as in a PyTorch state dict.

    Raises:
      InputError: they are not those of a known layout.
    """
    arrays = _plainly_named(arrays)
    layout = choose((TORCHVISION, _JIECAOYU), arrays)
    convolutions = [arrays.get(layout.names[f"conv{i}"]["kernel"]) for i in range(1, 6)]
    widths = [x.shape[0] for x in convolutions if x is not None and x.ndim]
    if layout is TORCHVISION and widths == HALF_WIDTHS:
        layout = HALF
    return to_params(arrays, layout, options, *notes)


# ---- The pickle


class _Storage(NamedTuple):
    """The memory that tensors are views of: its data type, name and number of elements."""

    dtype: Any
    key: str
    size: int


class _Tensor(NamedTuple):
    """The arguments that PyTorch rebuilds a tensor from; `_array` checks them."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


def _rebuild_tensor(*arguments: Any) -> _Tensor:
    return _Tensor(*arguments[:4])


def _ordered_dict(items: Any = None) -> dict[str, Any]:
    """Returns a dict; Python 2 gives its items, which are removed so that none is copied twice."""
    if items is None:
        return {}
    taken = [item for item in items if type(item[0]) is str]
    items.clear()
    return dict(taken)


_ADMITTED: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": lambda data, *rest: data,
    **{f"torch.{name}": None for name in _DTYPES},
}


def _tensors(saved: Any) -> Iterator[tuple[str, _Tensor]]:
    """Yields the names and tensors of a state dict, which may be in a training checkpoint."""
    for key in _WRAPPERS:
        if type(saved) is dict and type(saved.get(key)) is dict:
            saved = saved[key]
    if type(saved) is not dict:
        raise InputError("holds no state dict: save model.state_dict().")
    for name, value in saved.items():
        if not isinstance(value, _Tensor) or type(name) is not str:
            raise InputError(f"has no tensor at {name!r:.100}: save model.state_dict().")
        yield name, value


def _plainly_named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns arrays without the prefixes that data parallelism adds."""
    named = {_PREFIX.sub(r"\1", name): array for name, array in arrays.items()}
    if len(named) < len(arrays):
        raise InputError("has a tensor twice, with and without the prefix 'module.'.")
    return named


def _array(tensor: _Tensor, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns a tensor as a view of its storage.

    Raises:
      InputError: it reaches outside, or repeats elements.
    """
    storage, offset, shape, strides = tensor
    numbers = all(map(pickles.is_shape, ((offset,), shape, strides)))
    if not isinstance(storage, _Storage) or not numbers or len(shape) != len(strides):
        raise InputError("is damaged: a tensor is malformed.")
    array = storages[storage.key]
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count == 0 or last >= len(array) or count > len(array):
        raise InputError("is damaged: a tensor reaches past the end of its storage.")
    sizes = zip(shape, strides, strict=True)
    steps = [stride * array.itemsize if n > 1 else 0 for n, stride in sizes]
    return np.lib.stride_tricks.as_strided(array[offset:], shape, steps, writeable=False)


# ---- The containers


def _read_zip(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns the saved object and its storages by key."""
    members = archive.read_members(path)
    pickled = next(name for name in members if name.split("/")[-1] == "data.pkl")
    folder = pickled.removesuffix("data.pkl")
    order = ">" if members.get(f"{folder}byteorder") == b"big" else "<"
    found: dict[str, _Storage] = {}
    saved = pickles.load(io.BytesIO(members[pickled]), _ADMITTED, _keeping(found))
    storages = {}
    for key, storage in found.items():
        data = members.get(f"{folder}data/{key}")
        if data is None:
            raise InputError(f"is damaged: the member data/{key[:50]} is missing.")
        storages[key] = _numbers(data, storage, order)
    return saved, storages


def _read_stream(content: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Returns the saved object and its storages by key, which follow the pickles."""
    file = io.BytesIO(content)
    _, protocol, system = (pickles.load(file, {}) for _ in range(3))
    if protocol != _PROTOCOL or type(system) is not dict:
        raise InputError("is damaged, or of an unknown version of PyTorch's stream.")
    order = "<" if system.get("little_endian") is True else ">"
    found: dict[str, _Storage] = {}
    saved = pickles.load(file, _ADMITTED, _keeping(found))
    keys = pickles.load(file, {})
    named = type(keys) is list and all(type(key) is str for key in keys)
    if not named or sorted(keys) != sorted(found):
        raise InputError("is damaged: its list of storages does not match its tensors.")
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little" if order == "<" else "big")
        if count != found[key].size or count > len(content):
            raise InputError("is damaged: the length of a storage does not match its tensors.")
        data = file.read(count * np.dtype(found[key].dtype).itemsize)
        storages[key] = _numbers(data, found[key], order)
    if file.read(1):
        raise InputError("is damaged: it continues after its last storage.")
    return saved, storages


def _keeping(found: dict[str, _Storage]) -> Callable[[Any], _Storage]:
    """Returns a function that reads a persistent id and keeps the storage in `found`."""

    def load(identifier: Any) -> _Storage:
        """Takes ("storage", type, key, device, count, views)."""
        kind, reference, key, _, count, *views = identifier
        if kind != "storage" or type(key) is not str or type(count) is not int or count < 0:
            raise ValueError("a storage is malformed")
        if views and views[0] is not None:
            raise InputError("is refused: it has views of storages, as PyTorch 0.1 saved them.")
        storage = _Storage(_DTYPES[reference.name.removeprefix("torch.")], key, count)
        if found.setdefault(key, storage) != storage:
            raise ValueError("a storage has two types")
        return storage

    return load


def _numbers(data: bytes, storage: _Storage, order: str) -> np.ndarray:
    """Returns the content of a storage."""
    dtype = np.dtype(storage.dtype)
    if len(data) != storage.size * dtype.itemsize:
        raise InputError("is damaged: the length of a storage does not match its tensors.")
    array = np.frombuffer(data, dtype)
    return array if order == "<" or dtype.itemsize == 1 else array.byteswap()
