"""Pickles that run a command where Python unpickles them, or take endless time or memory.

Each is the value between a pickle's start and its end, so it can be anywhere in a file.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
import torch_archive
from torch_archive import number, text


def commands(canary: str) -> dict[str, bytes]:
    """Returns every way to call a function with an instruction, to create a file."""
    shell = f"touch {canary}"
    code = f"open({canary!r}, 'w').close()"
    line = f"S{shell!r}\n".encode()
    system = b"cos\nsystem\n"
    state = b"}" + text("__setstate__") + system + b"s"
    ordered = b"ccollections\nOrderedDict\n)R"
    return {
        "REDUCE": system + b"(" + text(shell) + b"tR",
        "REDUCE of posix": b"cposix\nsystem\n(" + text(shell) + b"tR",
        "INST": b"(" + line + b"ios\nsystem\n",
        "OBJ": b"(" + system + line + b"o",
        "eval": b"cbuiltins\neval\n" + text(code) + b"\x85R",
        "exec of Python 2": b"c__builtin__\neval\n" + text(code) + b"\x85R",
        "NEWOBJ": b"csubprocess\nPopen\n(](" + text("touch") + text(canary) + b"et\x81",
        "NEWOBJ_EX": b"csubprocess\nPopen\n(](" + text("touch") + text(canary) + b"et}\x92",
        "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93" + text(shell) + b"\x85R",
        "STACK_GLOBAL by memo": (
            b"(" + text("system") + b"q\x05" + text("os") + b"q\x06"
            b"h\x06h\x05\x93" + text(shell) + b"\x85Rt"
        ),
        "attribute of an admitted name": (
            b"\x8c\x0bcollections\x8c\x1fOrderedDict.__init__.__globals__\x93" + b")R"
        ),
        "getattr": b"cbuiltins\ngetattr\n(cos\nname\n" + text("system") + b"tR",
        "BUILD of a setter": ordered + state + b"b" + text(shell) + b"b",
        "BUILD of a class": b"ccollections\nOrderedDict\n" + state + b"b",
        "BUILD in BUILD": ordered + b"}" + text("a") + ordered + state + b"bsb",
        "BUILD of slots": ordered + b"N" + state + b"\x86b",
        "persistent id of a call": system + b"(" + text(shell) + b"tRQ",
        "persistent id as text": b"Pos.system\n",
        "storage of another class": (
            b"(" + text("storage") + system + text("0") + text("cpu") + number(9) + b"tQ"
        ),
        "extension": b"\x82\x01)R",
        "import": b"cbuiltins\n__import__\n(" + text("antigravity") + b"tR",
        "loads": b"c_pickle\nloads\n(B" + struct.pack("<I", 3) + b"N.." + b"tR",
        "numpy": b"cnumpy.testing._private.utils\nrunstring\n(" + text(code) + b"}tR",
        "torch": b"ctorch.hub\nload\n(" + text("a/b") + text("c") + b"tR",
    }


def _doubled(pair: bytes, start: bytes) -> bytes:
    """Returns a tuple of 80 objects, each of two of the object before."""
    parts = [start, b"q\x00"]
    for index in range(80):
        pushed = b"h" + bytes([index])
        parts += [pair.replace(b"AB", pushed + pushed), b"q" + bytes([index + 1])]
    return b"(" + b"".join(parts) + b"t"


def bombs() -> dict[str, bytes]:
    """Returns values that take endless time to copy, hash, print or compare, or much memory."""
    huge = b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000
    return {
        "lists of lists": _doubled(b"](ABe", b"]"),
        "tuples of tuples": _doubled(b"AB\x86", b")"),
        "dicts of dicts": _doubled(b"}(" + b"X\x01\0\0\0aAX\x01\0\0\0bBu", b"}"),
        "deep tuples": b")" + b"\x85" * 100_000,
        "deep lists": b"](" * 50_000 + b"N" + b"e" * 50_000,
        "deep dicts": b"}" + b"X\x01\0\0\0a}" * 50_000 + b"s" * 50_000,
        "deep marks": b"(" * 100_000 + b"t" * 100_000,
        "a list in itself": b"]q\x00h\x00a",
        "high memo index": b"Nr\xff\xff\xff\xff",
        "high memo index as text": b"Np99999999999\n",
        "long integers": b"(" + huge + b"q\x00" + b"h\x00" * 7 + b"t",
        "long decimal": b"L" + b"9" * 1_000_000 + b"L\n",
        "long text": b"\x8d" + struct.pack("<Q", 2**60),
        "long bytes": b"\x8e" + struct.pack("<Q", 2**60),
        "long byte array": b"\x96" + struct.pack("<Q", 2**60),
        "long frame": b"\x95" + struct.pack("<Q", 2**60) + b"N",
        "out-of-band buffer": b"\x97",
        "very many numbers": b"(" + b"N" * 1_500_000 + b"t",
    }


# ---- Where in a file they are


def _npy(value: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    return file.getvalue() + torch_archive.pickle(value)


def _in_array(value: bytes, field: int) -> bytes:
    """Returns an .npy file with a value as part of the state of an array."""
    dtype = b"cnumpy\ndtype\n(" + text("O8") + b"\x89\x88tR"
    state = [number(1), b")", dtype, b"\x89", b"]}a"]
    state[field] = value
    made = b"cnumpy._core.multiarray\n_reconstruct\n)R(" + b"".join(state) + b"tb"
    return _npy(made)


def _dtype(name: bytes, order: bytes) -> bytes:
    """Returns an .npy file with a value in the type of its array."""
    minus = number(-1)
    made = b"cnumpy\ndtype\n(" + name + b"\x89\x88tR"
    return _npy(made + b"(" + number(3) + order + b"NNN" + minus + minus + number(0) + b"tb")


def _in_layers(value: bytes) -> bytes:
    layers = b"}" + text("conv1") + value + b"s"
    return _in_array(b"](" + layers + b"e", 4)


def _tensor(part: int) -> Callable[[bytes], bytes]:
    """Returns what puts a value into an argument of _rebuild_tensor_v2."""

    def make(value: bytes) -> bytes:
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
        parts = [storage + number(9) + b"tQ", number(0), number(9) + b"\x85", number(1) + b"\x85"]
        parts[part] = value
        call = b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(parts) + b"tR"
        return torch_archive.state_dict({"a": call})

    return make


def _stream(position: int) -> Callable[[bytes], bytes]:
    """Returns what makes a value one of the pickles of PyTorch's older stream."""

    def make(value: bytes) -> bytes:
        little = b"}" + text("little_endian") + b"\x88s"
        pickles = [b"M\xe9\x03", little, torch_archive.state_dict({}), b"]"]
        pickles[position] = value
        return torch_archive.MAGIC + b"".join(map(torch_archive.pickle, pickles))

    return make


def _archive(value: bytes) -> bytes:
    return torch_archive.archive(value, [bytes(36)])


POSITIONS: dict[str, Callable[[bytes], bytes]] = {
    "archive": _archive,
    "archive, a value": lambda value: _archive(torch_archive.state_dict({"a": value})),
    "archive, items": lambda value: _archive(b"ccollections\nOrderedDict\n" + value + b"\x85R"),
    "archive, persistent id": lambda value: _archive(value + b"Q"),
    **{
        f"archive, tensor {part}": lambda value, part=part: _archive(_tensor(part)(value))
        for part in range(4)
    },
    **{f"stream, pickle {i}": _stream(i) for i in range(4)},
    "stream, a tensor": lambda value: _stream(2)(_tensor(2)(value)),
    "npy": _npy,
    "npy, layers": _in_layers,
    **{f"npy, array {i}": lambda value, i=i: _in_array(value, i) for i in range(5)},
    "npy, type": lambda value: _dtype(value, text("<")),
    "npy, byte order": lambda value: _dtype(text("f4"), value),
}
