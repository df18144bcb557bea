"""PyTorch's two kinds of files, written opcode by opcode without PyTorch."""

import io
import struct
import zipfile

import numpy as np

_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage"}
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(
    key: str,
    storage: tuple[str, int],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    *,
    legacy: bool = False,
) -> bytes:
    """Returns the call of _rebuild_tensor_v2; `storage` is (class, number of elements)."""
    kind, size = storage
    identifier = text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    identifier = b"(" + identifier + number(size) + (b"N" if legacy else b"") + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = identifier + number(offset) + numbers(shape) + numbers(strides) + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def tensors(arrays: dict[str, np.ndarray], *, legacy: bool = False) -> dict[str, bytes]:
    """Returns a tensor for each array, each with a storage of its own."""
    result = {}
    for key, (name, array) in enumerate(arrays.items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        storage = _STORAGES[array.dtype.name], array.size
        result[name] = tensor(str(key), storage, array.shape, strides, legacy=legacy)
    return result


def state_dict(items: dict[str, bytes]) -> bytes:
    """Returns an OrderedDict with the _metadata that PyTorch sets on it."""
    pairs = b"".join(text(name) + value for name, value in items.items())
    metadata = b"}" + text("_metadata") + b"ccollections\nOrderedDict\n)Rsb"
    return b"ccollections\nOrderedDict\n)R(" + pairs + b"u" + metadata


def pickle(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def archive(value: bytes, storages: list[bytes], folder: str = "archive") -> bytes:
    """Returns the zip file of a pickled value."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr(f"{folder}/data.pkl", pickle(value))
        members.writestr(f"{folder}/byteorder", "little")
        for key, data in enumerate(storages):
            members.writestr(f"{folder}/data/{key}", data)
        members.writestr(f"{folder}/version", "3\n")
    return file.getvalue()


def stream(value: bytes, storages: list[np.ndarray]) -> bytes:
    """Returns the older stream of a pickled value."""
    little = b"}" + text("little_endian") + b"\x88s"
    keys = b"](" + b"".join(text(str(key)) for key in range(len(storages))) + b"e"
    head = MAGIC + pickle(b"M\xe9\x03") + pickle(little) + pickle(value) + pickle(keys)
    sized = (struct.pack("<q", array.size) + array.tobytes() for array in storages)
    return head + b"".join(sized)


def archive_of(arrays: dict[str, np.ndarray]) -> bytes:
    """Returns the zip file of a state dict."""
    return archive(state_dict(tensors(arrays)), [array.tobytes() for array in arrays.values()])


def stream_of(arrays: dict[str, np.ndarray]) -> bytes:
    """Returns the older stream of a state dict."""
    return stream(state_dict(tensors(arrays, legacy=True)), list(arrays.values()))
