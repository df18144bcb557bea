"""Reads pickles without running anything in them.

A pickle is a program for a small stack machine. This one has only the instructions that containers,
numbers and text need. A name of a class or function stands for a function in the format's own
table; every other name is refused.
"""

import dataclasses
import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from alexnet_jax.errors import InputError

# Instructions that push the value after them, and those that name an object of the memo.
_PUSH = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"}
    | {"BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
)
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_MAX_INSTRUCTIONS = 1_000_000  # these limits bound the time and memory that a file can take
_MAX_ARGUMENTS = 10
_MAX_AXES = 8


@dataclasses.dataclass(frozen=True)
class Reference:
    """What a pickle names, such as a class.

    Attributes:
      name: "module.name".
      call: returns what the pickle's call of it stands for, from any arguments; None: it cannot be
        called.
    """

    name: str
    call: Callable[..., Any] | None = None


class StandIn:
    """An object of the pickle; subclasses hold what a format needs of it."""

    def set_state(self, state: Any) -> None:
        """Takes what the pickle gives as the object's state.

        Raises:
          InputError: it is not what the format has here.
        """
        raise InputError(f"is refused: its pickle sets the state of a {type(self).__name__}.")


def load(
    file: BinaryIO,
    admitted: Mapping[str, Callable[..., Any] | None],
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Returns the object that a pickle describes and leaves the file right after it.

    Tuples, lists and dicts may share members and contain themselves: traverse them, and print
    them, only as deep as the format needs.

    Args:
      file: its bytes, in memory.
      admitted: {"module.name": function} for everything that it may name; called with arguments of
        any type, and None for what is not called.
      persistent_load: returns what a persistent id stands for.

    Raises:
      InputError: it is damaged, or refused because it names anything else.
    """
    try:
        return _Machine(admitted, persistent_load).run(file)
    except InputError:
        raise
    except Exception as error:  # of any type, by malformed instructions and arguments
        raise InputError(f"is damaged: its pickle cannot be read ({error!s:.100}).") from error


def is_shape(value: Any) -> bool:
    """Returns whether an object of a pickle is a tuple of lengths, or of strides."""
    lengths = value if type(value) is tuple and len(value) <= _MAX_AXES else [None]
    return all(type(n) is int and 0 <= n < 2**63 for n in lengths)


def _is_key(key: Any) -> bool:
    """Returns whether an object can be a key: its hash is cheap and collides with few others."""
    return type(key) in (str, bytes) or (type(key) is int and abs(key) < 2**60)


class _Machine:
    """The stack machine; each method without arguments is an instruction of its name."""

    def __init__(
        self,
        admitted: Mapping[str, Callable[..., Any] | None],
        persistent_load: Callable[[Any], Any] | None,
    ):
        self._admitted, self._persistent_load = admitted, persistent_load
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # stacks below the last MARKs
        self._memo: dict[int, Any] = {}
        self._bytes_left = 0  # that functions may still get

    def run(self, file: BinaryIO) -> Any:
        """Returns the object on top of the stack at the end."""
        value: Any
        start = file.tell()
        size = file.seek(0, io.SEEK_END)
        file.seek(start)
        self._bytes_left = 2 * size  # two steps make an array
        for count, (instruction, value, _) in enumerate(pickletools.genops(file)):
            name = instruction.name
            if count > _MAX_INSTRUCTIONS:
                raise InputError("is refused: its pickle has too many instructions.")
            if name == "STOP":
                return self._stack.pop()
            if name in _PUSH:
                self._stack.append(value)
            elif name in _GET:
                self._stack.append(self._memo[value])
            elif name in _PUT:
                self._put(value)
            elif name == "GLOBAL":
                self._name(*value.split(" ", 1))
            elif name in _INSTRUCTIONS:
                _INSTRUCTIONS[name](self)
            elif name == "PROTO" and value > pickle.HIGHEST_PROTOCOL:
                raise ValueError(f"unknown protocol {value}")
            elif name == "FRAME" and value > size - file.tell():
                raise EOFError("a frame is cut off")
            elif name not in ("PROTO", "FRAME"):
                raise InputError(f"is refused: its pickle has the instruction {name}.")
        raise EOFError

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _put(self, index: int) -> None:
        if index > _MAX_INSTRUCTIONS:
            raise IndexError("too many objects")
        self._memo[index] = self._stack[-1]

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self._admitted:
            raise InputError(
                f"is refused: its pickle names {full[:100]!r}, which weights do not need. Save the "
                "arrays only, such as PyTorch's state_dict."
            )
        self._stack.append(Reference(full, self._admitted[full]))

    def _pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _set(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or not all(map(_is_key, items[::2])):
            raise InputError("is refused: its pickle has a dict with keys that are not names.")
        target.update(zip(items[::2], items[1::2], strict=True))

    def _extend(self, items: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise InputError("is refused: its pickle extends what is not a list.")
        self._stack[-1].extend(items)

    def _reduce(self) -> None:
        function, arguments = self._stack[-2:]
        if not isinstance(function, Reference) or function.call is None:
            raise InputError("is refused: its pickle calls what is not a function of weights.")
        if type(arguments) is not tuple or len(arguments) > _MAX_ARGUMENTS:
            raise TypeError("too many arguments")
        self._count_bytes(arguments)
        self._stack[-2:] = [function.call(*arguments)]

    def _build(self) -> None:
        state = self._stack.pop()
        target = self._stack[-1]
        if isinstance(target, StandIn):
            self._count_bytes(state if type(state) is tuple else ())
            target.set_state(state)
        elif type(target) is not dict:  # of a dict, attributes that no array is in
            raise InputError("is refused: its pickle sets the state of what is not an array.")

    def _count_bytes(self, arguments: tuple[Any, ...]) -> None:
        """Raises InputError if functions get more bytes than the file has: an object repeatedly."""
        self._bytes_left -= sum(len(x) for x in arguments if type(x) in (bytes, str))
        if self._bytes_left < 0:
            raise InputError("is refused: its pickle needs too much memory.")

    def _persistent(self) -> None:
        if self._persistent_load is None:
            raise InputError("is refused: its pickle has a persistent id.")
        self._stack.append(self._persistent_load(self._stack.pop()))

    def _mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _dict(self, items: list[Any]) -> None:
        self._stack.append({})
        self._set(items)

    def _append(self) -> None:
        item = self._stack.pop()
        self._extend([item])

    def _set_item(self) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._set([key, value])

    def _stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name is not text")
        self._name(module, name)


_INSTRUCTIONS: dict[str, Callable[[_Machine], Any]] = {
    "NONE": lambda machine: machine._push(None),
    "NEWTRUE": lambda machine: machine._push(True),
    "NEWFALSE": lambda machine: machine._push(False),
    "MARK": _Machine._mark,
    "EMPTY_TUPLE": lambda machine: machine._push(()),
    "TUPLE1": lambda machine: machine._tuple(1),
    "TUPLE2": lambda machine: machine._tuple(2),
    "TUPLE3": lambda machine: machine._tuple(3),
    "TUPLE": lambda machine: machine._push(tuple(machine._pop_to_mark())),
    "EMPTY_LIST": lambda machine: machine._push([]),
    "LIST": lambda machine: machine._push(machine._pop_to_mark()),
    "APPEND": _Machine._append,
    "APPENDS": lambda machine: machine._extend(machine._pop_to_mark()),
    "EMPTY_DICT": lambda machine: machine._push({}),
    "DICT": lambda machine: machine._dict(machine._pop_to_mark()),
    "SETITEM": _Machine._set_item,
    "SETITEMS": lambda machine: machine._set(machine._pop_to_mark()),
    "MEMOIZE": lambda machine: machine._put(len(machine._memo)),
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "NEWOBJ": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent,
}
