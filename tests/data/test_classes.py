"""Class tables as the field writes them."""

import json
from pathlib import Path

import pytest

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "text", "ids", "words"),
    [
        (
            "synset_words.txt",
            "n01 tench, Tinca tinca\nn02 goldfish\n\n",
            ("n01", "n02"),
            ("tench, Tinca tinca", "goldfish"),
        ),
        ("wnids.txt", "n02\nn01\n", ("n02", "n01"), ("n02", "n01")),
        (
            "imagenet_class_index.json",
            json.dumps({str(i): [f"n{i:02}", "crane"] for i in reversed(range(11))}),
            tuple(f"n{i:02}" for i in range(11)),
            ("crane",) * 11,
        ),
        ("class_indices.json", '{"1": "daisy", "0": "rose"}', ("rose", "daisy"), ("rose", "daisy")),
        ("class_indices.json", '{"daisy": 1, "rose": 0}', ("rose", "daisy"), ("rose", "daisy")),
    ],
)
def test_every_kind(tmp_path: Path, name: str, text: str, ids: tuple, words: tuple) -> None:
    (tmp_path / name).write_text(text)
    assert classes.read(tmp_path / name) == ClassTable(ids, words)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "is no class table"),
        ("a.json", "[1, 2]", "is no class table"),
        ("a.json", '{"0": "a", "2": "b"}', "is no class table"),
        ("a.json", '{"x": "a"}', "is no class table"),
        ("a.json", '{"0": []}', "is no class table"),
        ("a.txt", "", "is empty"),
        ("a.txt", "n1 a\nn1 b\n", "has the class 'n1' 2 times"),
    ],
)
def test_what_is_no_table_is_told(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        classes.read(tmp_path / name)


def test_a_table_in_the_root_is_found_and_one_given_wins(tmp_path: Path) -> None:
    assert classes.find(tmp_path, None) is None
    (tmp_path / "class_indices.json").write_text('{"0": "json"}')
    assert classes.find(tmp_path, None) == classes.plain(["json"])
    (tmp_path / "synset_words.txt").write_text("n1 text")
    assert classes.find(tmp_path, None) == ClassTable(("n1",), ("text",))
    given = str(tmp_path / "class_indices.json")
    assert classes.find(tmp_path, given) == classes.plain(["json"])
    with pytest.raises(InputError, match=r"none\.txt cannot be read: No such file"):
        classes.find(tmp_path, "none.txt")


def test_words_of_another_table() -> None:
    words = ClassTable(("n3", "n1"), ("three", "one"))
    assert classes.plain(["n1", "n2"]).with_words_of(words) == (("n1", "n2"), ("one", "n2"))
