"""Pickles of plain values are read; nothing of any other runs."""

import collections
import io
import os
import pickle
import struct
from typing import Any

import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.weights import pickles

PLAIN = [
    None,
    [True, False, 0, -1, 255, 70_000, -(2**40), 2**100, 1.5],
    {"a": [1, (2, 3), (), (1,), (1, 2, 3, 4)], b"b": {}, 3: "text", "é": b"bytes" * 100},
    ["x" * 300, [[[]]], {"nested": {"deep": (None,)}}],
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", PLAIN, ids=range(len(PLAIN)))
def test_plain_values(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)
    admitted = {"_codecs.encode": lambda text, coding: text.encode(coding)}  # of bytes, before 3
    assert pickles.load(io.BytesIO(data), admitted) == value


def test_shared_members_are_shared() -> None:
    inner = [1]
    outer = pickles.load(io.BytesIO(pickle.dumps([inner, inner])), {})
    assert outer[0] is outer[1]


def test_the_file_is_left_after_the_end() -> None:
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps(2) + b"rest")
    assert [pickles.load(file, {}) for _ in range(2)] == [1, 2]
    assert file.read() == b"rest"


class Command:
    """Runs a command when it is unpickled as usual."""

    def __init__(self, path: Any):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_runs(protocol: int, tmp_path: Any) -> None:
    data = pickle.dumps({"weights": [Command(tmp_path / "made")]}, protocol)
    with pytest.raises(InputError, match="mkdir"):
        pickles.load(io.BytesIO(data), {"collections.OrderedDict": dict})
    assert not (tmp_path / "made").exists()


ADMITTED = {"m.f": lambda *arguments: ("called", arguments), "m.constant": None, "m.dict": dict}

HOSTILE = {
    "old instance": b"(S'ls'\nios\nsystem\n.",
    "old object": b"(cos\nsystem\nS'ls'\no.",
    "extension": b"\x82\x01.",
    "name on the stack": b"\x8c\x02os\x8c\x06system\x93.",
    "attribute of an admitted name": b"\x8c\x01m\x8c\nf.__code__\x93.",
    "name that is no text": b"]\x8c\x01f\x93.",
    "call of a constant": b"cm\nconstant\n)R.",
    "call of text": b"X\x01\x00\x00\x00a)R.",
    "arguments that are no tuple": b"cm\nf\n]R.",
    "very many arguments": b"cm\nf\n(" + b"N" * 100 + b"tR.",
    "keywords of a new object": b"cm\nf\n)}\x92.",
    "state of a name": b"cm\nf\n}b.",
    "state of a list": b"]}b.",
    "persistent id": b"X\x01\x00\x00\x00aQ.",
    "persistent id as text": b"Pname\n.",
    "list extended into a dict": b"}(Ne.",
    "key that is no name": b"}))s.",
    "key of deep tuples": b"})" + b"\x85" * 100_000 + b"Ns.",
    "keys that collide": b"}"
    + b"".join(b"\x8a\x09" + (i * (2**61 - 1)).to_bytes(9, "little") + b"Ns" for i in range(2, 4))
    + b".",
    "huge byte array": b"\x96" + struct.pack("<Q", 2**50) + b".",
    "huge bytes": b"\x8e" + struct.pack("<Q", 2**62) + b"abc.",
    "huge text": b"X\xff\xff\xff\xffabc.",
    "huge integer": b"\x8b\xff\xff\xff\x7fabc.",
    "long decimal": b"L" + b"9" * 10_000 + b"L\n.",
    "huge memo index": b"Nr\xff\xff\xff\xff.",
    "memo index of text": b"Np99999999999999999999\n.",
    "unknown memo index": b"h\x05.",
    "missing mark": b"t.",
    "missing operands": b"\x86.",
    "empty stack": b".",
    "no end": b"N",
    "empty": b"",
    "unknown instruction": b"\xff.",
    "out-of-band buffer": b"\x97.",
    "set": b"\x8f.",
    "popped": b"N0.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        pickles.load(io.BytesIO(HOSTILE[name]), ADMITTED)


def test_very_many_instructions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "_MAX_INSTRUCTIONS", 1000)
    with pytest.raises(InputError, match="instructions"):
        pickles.load(io.BytesIO(b"(" + b"N" * 2000 + b"t."), {})


def test_copies_of_one_object_are_limited() -> None:
    text = b"X" + struct.pack("<I", 3000) + b"a" * 3000 + b"q\x00"
    with pytest.raises(InputError, match="memory"):
        pickles.load(io.BytesIO(text + b"cm\nf\nh\x00\x85R" * 4 + b"."), ADMITTED)
    part = b"cm\nPart\n)R"
    with pytest.raises(InputError, match="memory"):
        pickles.load(io.BytesIO(text + part + b"h\x00\x85b" * 4 + b"."), {"m.Part": Part})


def test_admitted_names_are_called_with_their_arguments() -> None:
    data = b"cm\nf\n(K\x01cm\nconstant\ntR."
    _, (one, constant) = pickles.load(io.BytesIO(data), ADMITTED)
    assert one == 1
    assert constant == pickles.Reference("m.constant")


def test_attributes_of_a_dict_are_ignored() -> None:
    value = collections.OrderedDict(a=1)
    value.metadata = 2  # type: ignore[attr-defined]
    found = pickles.load(io.BytesIO(pickle.dumps(value)), {"collections.OrderedDict": dict})
    assert found == {"a": 1}


class Part(pickles.StandIn):
    def set_state(self, state: Any) -> None:
        self.state = state


def test_state_of_a_stand_in() -> None:
    data = b"cm\nPart\n)RK\x07b."
    assert pickles.load(io.BytesIO(data), {"m.Part": Part}).state == 7
    with pytest.raises(InputError, match="StandIn"):
        pickles.load(io.BytesIO(data), {"m.Part": pickles.StandIn})
