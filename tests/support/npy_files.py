"""NumPy's .npy files of one Python object, as Guerzhoy's."""

import io
import pickle
import struct
from typing import Any

import numpy as np

Layers = dict[str, list[np.ndarray]]


def npy(content: Any, protocol: int = 4) -> bytes:
    """Returns an .npy file of one Python object, as numpy writes it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    pickle.dump(np.array(content, dtype=object), file, protocol)
    return file.getvalue()


def python_2(layers: Layers) -> bytes:
    """Returns the file that Python 2 and numpy 1.7 wrote: every byte of its pickle is set here."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<I", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def dtype(code: bytes, order: bytes) -> bytes:
        flags = number(63 if code == b"O8" else 0)
        state = number(3) + text(order) + b"NNN" + number(-1) + number(-1) + flags
        return b"cnumpy\ndtype\n" + text(code) + number(0) + number(1) + b"\x87R(" + state + b"tb"

    def array(shape: tuple[int, ...], kind: bytes, content: bytes) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        made += number(0) + b"\x85" + text(b"b") + b"\x87R"
        sides = b"(" + b"".join(map(number, shape)) + b"t"
        return made + b"(" + number(1) + sides + kind + b"I00\n" + content + b"tb"

    entries = b""
    for name, (kernel, bias) in layers.items():
        both = (
            array(x.shape, dtype(b"f4", b"<"), text(x.astype("<f4").tobytes()))
            for x in (kernel, bias)
        )
        entries += text(name.encode()) + b"](" + b"".join(both) + b"e"
    content = b"](}(" + entries + b"ue"
    header = b"{'descr': 'O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(len(header) + 11) % 16) + b"\n"
    pickled = b"\x80\x02" + array((), dtype(b"O8", b"|"), content) + b"."
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + pickled
