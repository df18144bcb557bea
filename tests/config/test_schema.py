import contextlib
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from alexnet_jax import schema
from alexnet_jax.schema import Key, Table, choice, flag, integer, many, number, text


def check_lower(value: str) -> None:
    if not value.islower():
        raise ValueError(f"{value!r} is loud.")


COUNT = integer(3, "A count.", 1, 10)
NOTHING_OR_COUNT = integer(None, "A count or nothing.", 0, 10)
RATE = number(0.5, "A rate.", 0, 1e9)
NAME = text("a", "A name.")
LOWER = text("a", "A name.", check_lower)
COLOR = choice("red", "A color.", ("red", "green", "blue"))
CHANNELS = Key(3, int, "Channels.", choices=(1, 3))
SWITCH = flag(True, "A switch.")
TIMES = many(text("", ""), "Durations.")
LEVELS = many(number(0.0, "", 0, 255), "Pixel values.", (1.0, 2.0))

SCHEMA = {
    "name": NAME,
    "train": {"count": COUNT, "rate": RATE, "levels": LEVELS, "limits": {"count": COUNT}},
    "rates": Table({"rate": RATE, "times": TIMES, "pattern": NAME}, {"all": {"rate": 0.25}}),
}
DEFAULTS = {
    "name": "a",
    "train": {"count": 3, "rate": 0.5, "levels": (1.0, 2.0), "limits": {"count": 3}},
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
        (LOWER, "b", "b"),
        (TIMES, ["1 epoch"], ("1 epoch",)),
        (TIMES, (), ()),
        (LEVELS, (1, 0.5), (1.0, 0.5)),
    ],
)
def test_a_valid_value_is_kept_in_its_own_type(key: Key, given: Any, kept: Any) -> None:
    value = schema.check(key, given)
    assert (value, type(value)) == (kept, type(kept))
    if isinstance(kept, tuple):
        assert [type(element) for element in value] == [type(element) for element in kept]


@pytest.mark.parametrize(
    ("key", "given"),
    [
        *((COUNT, value) for value in ("3", 3.5, True, None, 0, 11, 1e308, 10**400)),
        (NOTHING_OR_COUNT, "x"),
        *((RATE, value) for value in (float("nan"), float("inf"), False, 10**400)),
        (NAME, 7),
        (NAME, "x" * 10_000),
        (LOWER, "B"),
        (SWITCH, 1),
        (COLOR, "gren"),
        (CHANNELS, 2),
        *((TIMES, value) for value in ("1 epoch", ("1 epoch", 2), (None,), ("",) * 10_000)),
        *((LEVELS, value) for value in (1.0, (1.0, -2.0), (256,), ("1",))),
    ],
)
def test_an_invalid_value_has_an_error(key: Key, given: Any) -> None:
    with pytest.raises(ValueError, match=r".\."):
        schema.check(key, given)


def test_a_choice_is_suggested() -> None:
    with pytest.raises(ValueError, match=r"'green'\?"):
        schema.check(COLOR, "gren")
    with pytest.raises(ValueError, match=r"^[^?]*$"):
        schema.check(COLOR, "xyz")


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
        (LEVELS, "1, 2", (1.0, 2.0)),
    ],
)
def test_parse(key: Key, text: str, value: Any) -> None:
    assert schema.parse(key, text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *((COUNT, text) for text in ("", "seven", "{[]: 1}", "(" * 900, "9" * 5000)),
        (COUNT, "0x" + "f" * 5000),
        (SWITCH, "yes"),
        (RATE, "1e999"),
        (TIMES, "1 epoch, 2 epochs"),
        (LEVELS, "(1)"),
    ],
)
def test_text_that_cannot_be_parsed_has_an_error(key: Key, text: str) -> None:
    with pytest.raises(ValueError, match=r".\."):
        schema.parse(key, text)


@pytest.mark.filterwarnings("ignore::SyntaxWarning", "ignore::DeprecationWarning")
@settings(max_examples=40)
@given(st.sampled_from([COUNT, NOTHING_OR_COUNT, RATE, SWITCH, TIMES, LEVELS, COLOR]), st.text())
def test_no_text_raises(key: Key, text: str) -> None:
    with contextlib.suppress(ValueError):
        value = schema.parse(key, text)
        assert schema.check(key, value) == value


@given(st.floats(0, 1e9), st.lists(st.text(max_size=9), max_size=9))
def test_what_python_writes_is_parsed(number: float, texts: list[str]) -> None:
    assert schema.parse(RATE, repr(number)) == number
    assert schema.parse(TIMES, repr(tuple(texts))) == tuple(texts)


def test_merge_puts_values_over_the_defaults_and_new_rows_before_the_standard_ones() -> None:
    given = {
        "train.count": 4,
        "train.limits.count": 5,
        "rates.all.times": ["1 epoch"],
        "rates.second.rate": 1,
        "rates.first.rate": 2,
    }
    tree, errors = schema.merge(SCHEMA, given)
    assert errors == []
    assert tree == {
        "name": "a",
        "train": {"count": 4, "rate": 0.5, "levels": (1.0, 2.0), "limits": {"count": 5}},
        "rates": {
            "second": {"rate": 1.0, "times": (), "pattern": "a"},
            "first": {"rate": 2.0, "times": (), "pattern": "a"},
            "all": {"rate": 0.25, "times": ("1 epoch",), "pattern": "a"},
        },
    }
    assert list(tree["rates"]) == ["second", "first", "all"]
    assert schema.defaults(SCHEMA) == DEFAULTS  # which the merge has not changed


def test_merge_returns_every_error_and_keeps_the_defaults_there() -> None:
    wrong = {
        "nmae": "b",
        "train": 3,
        "train.cuont": 4,
        "count": 4,
        "optimizer.levels": (1.0, 2.0),
        "train.rate": "fast",
        "rates.all.rat": 1.0,
        "rates": 1.0,
        "rates.all": 1.0,
        "rates..rate": 1.0,
        "name.first": "b",
        "zzz": 1,
    }
    tree, errors = schema.merge(SCHEMA, {**wrong, "train.limits.count": 6})
    assert [error.partition(":")[0] for error in errors] == list(wrong)
    suggested = {path: error.rpartition(" ")[2] for path, error in zip(wrong, errors, strict=True)}
    assert suggested["nmae"] == "'name'?"
    assert suggested["train"] == "'train.count'."
    assert suggested["train.cuont"] == "'train.count'?"
    assert suggested["count"] == "'train.count'?"
    assert suggested["optimizer.levels"] == "'train.levels'?"
    assert suggested["rates.all.rat"] == "'rates.all.rate'?"
    assert suggested["rates"] == "'rates.<row>.rate'."
    assert "?" not in suggested["zzz"]
    assert tree == {**DEFAULTS, "train": {**DEFAULTS["train"], "limits": {"count": 6}}}


def test_paths_of_a_schema_and_of_a_tree() -> None:
    assert [path for path, _ in schema.keys(SCHEMA)] == [
        "name",
        "train.count",
        "train.rate",
        "train.levels",
        "train.limits.count",
        "rates.<row>.rate",
        "rates.<row>.times",
        "rates.<row>.pattern",
    ]
    assert schema.find(SCHEMA, "train.limits.count") is COUNT
    assert schema.find(SCHEMA, "rates.any.times") is TIMES
    for path in ("train", "rates", "rates.all", "train.count.more", "", "rates..times"):
        assert schema.find(SCHEMA, path) is None
    assert schema.flatten({"a": {"b": {"c": 1}, "d": (2,)}, "e": None}) == {
        "a.b.c": 1,
        "a.d": (2,),
        "e": None,
    }
