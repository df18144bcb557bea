"""Guerzhoy's bvlc_alexnet.npy and other files of caffe-tensorflow: a dictionary in an .npy file.

{layer: [weights, biases]} or {layer: {"weights": ..., "biases": ...}}, the names text or bytes.
Convolutions are HWIO, for BGR images; fc6 takes HWC features.
"""

import ast
import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexnet_jax.errors import InputError
from alexnet_jax.weights import pickles
from alexnet_jax.weights.layout import Layout, from_params, pairs, to_params
from alexnet_jax.weights.model_file import ModelFile, ReadOptions

_MAGIC = b"\x93NUMPY"
_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
_PIXELS: Mapping[str, Any] = {
    "data.image_size": 227,
    "data.resize": "warp",
    "augment.mean": "given",
    "augment.channel_mean": (123.68, 116.779, 103.939),
}
_UNSCALED = {"augment.scale": 1.0, "augment.channel_std": (), "model.input_size": 227}
_LAYOUT = Layout(
    name="of Guerzhoy's npy file",
    model="caffe",
    names=pairs({layer: layer for layer in _LAYERS}, ".weights", ".biases"),
    config=_PIXELS,
    conv_axes="HWIO",
    dense_axes="IO",
    flattening="HWC",
    channel_order="bgr",
)
_DTYPES = ("f2", "f4", "f8")
_log = logging.getLogger(__name__)


def matches(head: bytes, path: Path) -> bool:
    """Returns whether a file is an .npy file."""
    return head.startswith(_MAGIC)


def read_file(path: Path, options: ReadOptions) -> ModelFile:
    """Reads a dictionary of layers.

    Raises:
      InputError: it is damaged, refused, holds something else, or does not fit the model.
    """
    file = io.BytesIO(path.read_bytes())
    _skip_header(file)
    saved = pickles.load(file, _ADMITTED)
    if file.read(1):
        raise InputError("is damaged: it continues after its dictionary.")
    note = (
        "The file does not store its preprocessing; 227 pixels and ImageNet's mean color are "
        "assumed."
    )
    return to_params(dict(_arrays(saved)), _LAYOUT, options, note)


def write_file(path: Path, model_file: ModelFile) -> None:
    """Writes {layer: [weights, biases]}; the format has no place for preprocessing and classes.

    Raises:
      InputError: the layers are not Caffe's.
    """
    arrays = from_params(model_file, _LAYOUT)
    layers = {layer: [arrays[x] for x in names.values()] for layer, names in _LAYOUT.names.items()}
    own_config = {**_UNSCALED, **model_file.config}
    for key, value in {**_PIXELS, **_UNSCALED}.items():
        if (own := own_config.get(key)) != value:
            _log.warning(
                "The format npy does not hold %s: readers take it as %r, this model needs %r.",
                *(key, value, own),
            )
    with path.open("wb") as file:  # np.save appends .npy to a name
        np.save(file, np.array(layers, dtype=object), allow_pickle=True)


# ---- Stand-ins for what the pickles of NumPy's arrays name


class _Dtype(pickles.StandIn):
    """The type of an array: floating-point numbers, or objects."""

    def __init__(self, code: Any, *options: Any):
        """Takes the arguments of numpy.dtype, such as ("f4", False, True)."""
        code = code if type(code) is str else "unknown"  # others may be too deep to print
        self.is_object = code in ("O8", "O4")
        if code not in _DTYPES and not self.is_object:
            raise InputError(f"holds arrays of type {code!r:.20}, not of floating-point numbers.")
        self.code: str = code

    def set_state(self, state: Any) -> None:
        """Takes (version, byte order, subarray, names, fields, size, alignment, flags)."""
        _, order, *others = state
        if type(order) is not str or others[:5] != [None, None, None, -1, -1]:
            raise TypeError("an unusual type of numbers")  # order may be too deep to hash
        order = {"<": "<", ">": ">", "|": ""}[order]
        self.code = order + self.code.lstrip("<>")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Returns the bytes of a text, which stands for them in pickles of Python 2 and for it."""
    if type(text) is not str or encoding != "latin1":
        raise TypeError("no bytes")
    return text.encode("latin1")


class _Array(pickles.StandIn):
    """An array: numbers, the list of its objects, or None before its state is known."""

    content: Any = None

    def set_state(self, state: Any) -> None:
        """Takes (version, shape, dtype, whether in Fortran order, bytes or list)."""
        version, shape, dtype, fortran, data = state
        if (
            version not in (0, 1)
            or not isinstance(dtype, _Dtype)
            or not pickles.is_shape(shape)
            or 0 in shape
            or type(fortran) not in (bool, int)
        ):
            raise InputError("is damaged: an array is malformed.")
        if dtype.is_object:
            self.content = data
            return
        raw = data if type(data) is bytes else _encode(data)
        if len(raw) != math.prod(shape) * np.dtype(dtype.code).itemsize:
            raise InputError("is damaged: an array does not have its declared size.")
        numbers = np.frombuffer(raw, dtype.code)
        self.content = numbers.reshape(shape, order="F" if fortran else "C")


_ADMITTED: Mapping[str, Callable[..., Any] | None] = {
    "numpy.dtype": _Dtype,
    "numpy.ndarray": None,
    "numpy.core.multiarray._reconstruct": lambda *arguments: _Array(),
    "numpy._core.multiarray._reconstruct": lambda *arguments: _Array(),
    "_codecs.encode": _encode,
}


# ---- The file around the pickle, and the dictionary in it


def _skip_header(file: io.BytesIO) -> None:
    """Reads the header of an .npy file, which must be of one Python object.

    Raises:
      InputError: it is damaged, or of numbers.
    """
    version = file.read(len(_MAGIC) + 2)[len(_MAGIC) :]
    length = int.from_bytes(file.read(2 if version == b"\1\0" else 4), "little")
    try:
        header = ast.literal_eval(file.read(min(length, 1000)).decode("latin1"))
        kind, _, shape = (header.pop(key) for key in ("descr", "fortran_order", "shape"))
        if header:
            raise ValueError("it has other keys")
    except Exception as error:  # of many types, by malformed headers
        raise InputError(f"is damaged: its header cannot be read ({error!s:.100}).") from error
    if kind not in ("O", "|O") or shape != ():
        raise InputError("holds an array, not a dictionary of the layers of a model.")


def _arrays(saved: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names in the layout, and the arrays, of a dictionary."""
    objects = saved.content if isinstance(saved, _Array) else None
    layers = objects[0] if type(objects) is list and len(objects) == 1 else None
    if type(layers) is not dict:
        raise InputError("holds no dictionary of the layers of a model.")
    for key, parameters in layers.items():
        layer = _text(key)
        if type(parameters) is dict:
            named = [(_text(name), value) for name, value in parameters.items()]
        elif type(parameters) in (list, tuple):  # distinguished by their axes
            named = [("biases" if _ndim(x) == 1 else "weights", x) for x in parameters]
        else:
            named = []
        repeated = len(named) > len(dict(named))
        if not named or repeated or not all(_ndim(value) for _, value in named):
            raise InputError(f"has no weights and biases of {layer!r:.50}.")
        for name, value in named:
            yield f"{layer}.{name}", value.content


def _text(key: Any) -> str:
    return key.decode("latin1") if type(key) is bytes else str(key)


def _ndim(value: Any) -> int:
    """Returns the number of axes of an array of numbers, 0 for anything else."""
    content = value.content if isinstance(value, _Array) else None
    return content.ndim if isinstance(content, np.ndarray) else 0
