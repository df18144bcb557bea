from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet_jax import schema
from alexnet_jax.schema import Key, Table

COUNT = Key(3, int, "A count.", low=1, high=10)
NOTHING_OR_COUNT = Key(None, int, "A count or nothing.", optional=True)
RATE = Key(0.5, float, "A rate.", low=0)
NAME = Key("a", str, "A name.")
COLOR = Key("red", str, "A color.", choices=("red", "green", "blue"))
SWITCH = Key(True, bool, "A switch.")
TIMES = Key((), tuple, "Durations.", element=str)
PAIR = Key((1.0, 2.0), tuple, "Two numbers.", element=float, length=2, low=0)

SCHEMA = {
    "name": NAME,
    "train": {"count": COUNT, "rate": RATE, "pair": PAIR, "limits": {"count": NOTHING_OR_COUNT}},
    "rates": Table(
        {"rate": RATE, "times": TIMES, "pattern": NAME}, {"all": {"rate": 0.25}}, "Rates by name."
    ),
}
DEFAULTS = {
    "name": "a",
    "train": {"count": 3, "rate": 0.5, "pair": (1.0, 2.0), "limits": {"count": None}},
    "rates": {"all": {"rate": 0.25, "times": (), "pattern": "a"}},
}


@pytest.mark.parametrize(
    ("key", "given", "kept"),
    [
        (COUNT, 10, 10),
        (COUNT, 4.0, 4),
        (NOTHING_OR_COUNT, None, None),
        (RATE, 1, 1.0),
        (RATE, 0.0, 0.0),
        (SWITCH, False, False),
        (COLOR, "blue", "blue"),
        (TIMES, ["1 epoch"], ("1 epoch",)),
        (TIMES, (), ()),
        (PAIR, (1, 0.5), (1.0, 0.5)),
    ],
)
def test_a_right_value_is_kept_in_its_own_type(key: Key, given: Any, kept: Any) -> None:
    value, mistake = schema.check(key, given)
    assert not mistake
    assert (value, type(value)) == (kept, type(kept))
    if isinstance(kept, tuple):
        assert [type(element) for element in value] == [type(element) for element in kept]


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        (COUNT, "3", "'3' is not a whole number."),
        (COUNT, 3.5, "3.5 is not a whole number."),
        (COUNT, True, "True is not a whole number."),
        (COUNT, None, "None is not a whole number."),
        (COUNT, 0, "0 is below 1, the least allowed."),
        (COUNT, 11, "11 is above 10, the most allowed."),
        (Key(0, int, "", high=2**31 - 1), 2**31, "2147483648 is above 2147483647, the most all"),
        (NOTHING_OR_COUNT, "x", "'x' is not a whole number or None."),
        (RATE, float("nan"), "nan is not a number."),
        (RATE, float("inf"), "inf is not a number."),
        (RATE, False, "False is not a number."),
        (NAME, 7, "7 is not a text."),
        (SWITCH, 1, "1 is not True or False."),
        (COLOR, "gren", "'red', 'green', 'blue'. Did you mean 'green'?"),
        (COLOR, "xyz", "'xyz' is not one of 'red', 'green', 'blue'."),
        (TIMES, "1 epoch", "'1 epoch' is not a tuple of texts, as ('a', 'b') or ('a',)."),
        (TIMES, ("1 epoch", 2), "('1 epoch', 2) is not a tuple of texts"),
        (PAIR, (1.0,), "(1.0,) has 1 elements; 2 are needed."),
        (PAIR, (1.0, 2.0, 3.0), "(1.0, 2.0, 3.0) has 3 elements; 2 are needed."),
        (PAIR, 1.0, "1.0 is not a tuple of numbers, as (0.1, 0.2) or (0.1,)."),
        (PAIR, (1.0, -2.0), "-2.0 is below 0, the least allowed."),
    ],
)
def test_a_wrong_value_is_told_in_a_sentence(key: Key, given: Any, message: str) -> None:
    value, mistake = schema.check(key, given)
    assert message in mistake
    assert mistake.endswith((".", "?"))
    if not key.choices and "allowed" not in mistake:
        assert value is None


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        (COUNT, "7", 7),
        (COUNT, "1e1", 10),
        (NOTHING_OR_COUNT, "None", None),
        (RATE, "1e-3", 1e-3),
        (RATE, "2", 2.0),
        (NAME, "", ""),
        (NAME, "None", "None"),
        (NAME, "3", "3"),
        (SWITCH, "false", False),
        (SWITCH, "True", True),
        (TIMES, "('25 epochs', '51 epochs')", ("25 epochs", "51 epochs")),
        (TIMES, "['25 epochs']", ("25 epochs",)),
        (TIMES, "()", ()),
        (PAIR, "1, 2", (1.0, 2.0)),
    ],
)
def test_parse(key: Key, text: str, value: Any) -> None:
    assert schema.parse(key, text) == (value, "")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (COUNT, ""),
        (COUNT, "seven"),
        (COUNT, "{[]: 1}"),
        (COUNT, "(" * 1000),
        (SWITCH, "yes"),
        (RATE, "1e999"),
        (TIMES, "1 epoch, 2 epochs"),
        (PAIR, "(1)"),
    ],
)
def test_what_cannot_be_parsed_is_named(key: Key, text: str) -> None:
    value, mistake = schema.parse(key, text)
    assert value is None
    assert " is not " in mistake


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@given(st.sampled_from([COUNT, NOTHING_OR_COUNT, RATE, SWITCH, TIMES, PAIR, COLOR]), st.text())
def test_no_text_escapes_the_parser(key: Key, text: str) -> None:
    value, mistake = schema.parse(key, text)
    if not mistake:
        assert schema.check(key, value) == (value, "")


@given(st.floats(min_value=0, allow_infinity=False), st.lists(st.text()))
def test_what_python_writes_is_read_back(number: float, texts: list[str]) -> None:
    assert schema.parse(RATE, repr(number)) == (number, "")
    assert schema.parse(TIMES, repr(tuple(texts))) == (tuple(texts), "")


def test_merge_lays_values_over_the_defaults() -> None:
    given = {
        "train.count": 4,
        "train.limits.count": 5,
        "rates.all.times": ["1 epoch"],
        "rates.new.rate": 1,
    }
    tree, mistakes = schema.merge(SCHEMA, given)
    assert mistakes == []
    assert tree == {
        "name": "a",
        "train": {"count": 4, "rate": 0.5, "pair": (1.0, 2.0), "limits": {"count": 5}},
        "rates": {
            "all": {"rate": 0.25, "times": ("1 epoch",), "pattern": "a"},
            "new": {"rate": 1.0, "times": (), "pattern": "a"},
        },
    }
    assert schema.defaults(SCHEMA) == DEFAULTS  # which the merge has not touched


def test_merge_tells_every_mistake_and_keeps_the_defaults_there() -> None:
    given = {
        "nmae": "b",
        "train": 3,
        "train.cuont": 4,
        "count": 4,
        "optimizer.pair": (1.0, 2.0),
        "train.rate": "fast",
        "train.pair": (1.0, 2.0, 3.0),
        "rates.all.rat": 1.0,
        "rates": 1.0,
        "rates.all": 1.0,
        "name.first": "b",
        "zzz": 1,
        "train.limits.count": 6,
    }
    tree, mistakes = schema.merge(SCHEMA, given)
    assert mistakes == [
        "nmae: there is no such key. Did you mean 'name'?",
        "train: is a group of keys; set one of them, as 'train.count'.",
        "train.cuont: there is no such key. Did you mean 'train.count'?",
        "count: there is no such key. Did you mean 'train.count'?",
        "optimizer.pair: there is no such key. Did you mean 'train.pair'?",
        "train.rate: 'fast' is not a number.",
        "train.pair: (1.0, 2.0, 3.0) has 3 elements; 2 are needed.",
        "rates.all.rat: there is no such key. Did you mean 'rates.all.rate'?",
        "rates: is a group of keys; set one of them, as 'rates.<row>.rate'.",
        "rates.all: is a group of keys; set one of them, as 'rates.all.rate'.",
        "name.first: there is no such key.",
        "zzz: there is no such key.",
    ]
    right = {**DEFAULTS["train"], "limits": {"count": 6}}
    assert tree == {**DEFAULTS, "train": right}


def test_paths_of_a_schema_and_of_a_tree() -> None:
    assert [path for path, _ in schema.keys(SCHEMA)] == [
        "name",
        "train.count",
        "train.rate",
        "train.pair",
        "train.limits.count",
        "rates.<row>.rate",
        "rates.<row>.times",
        "rates.<row>.pattern",
    ]
    assert schema.find(SCHEMA, "train.limits.count") is NOTHING_OR_COUNT
    assert schema.find(SCHEMA, "rates.any.times") is TIMES
    for path in ("train", "rates", "rates.all", "train.count.more", "", "rates..times.x"):
        assert schema.find(SCHEMA, path) is None
    assert schema.flatten({"a": {"b": {"c": 1}, "d": (2,)}, "e": None}) == {
        "a.b.c": 1,
        "a.d": (2,),
        "e": None,
    }
