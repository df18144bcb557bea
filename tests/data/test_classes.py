"""Class tables as other programs write them."""

import json
from pathlib import Path

import pytest

from alexnet_jax.data import classes
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError


@pytest.mark.parametrize(
    ("name", "text", "ids", "labels"),
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
def test_every_kind(tmp_path: Path, name: str, text: str, ids: tuple, labels: tuple) -> None:
    (tmp_path / name).write_text(text)
    assert classes.read(tmp_path / name) == ClassTable(ids, labels)


def test_imagenet() -> None:
    """In the order of torchvision, with what Caffe's synset_words.txt says."""
    table = classes.imagenet()
    assert len(set(table.ids)) == 1000
    assert list(table.ids) == sorted(table.ids)  # as torchvision's ImageFolder numbers them
    known = {
        0: ("n01440764", "tench, Tinca tinca"),
        134: ("n02012849", "crane"),
        281: ("n02123045", "tabby, tabby cat"),
        517: ("n03126707", "crane"),
        999: ("n15075141", "toilet tissue, toilet paper, bathroom tissue"),
    }
    for index, row in known.items():
        assert (table.ids[index], table.labels[index]) == row


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", r"a\.json"),
        ("a.json", "[1, 2]", r"a\.json"),
        ("a.json", '{"0": "a", "2": "b"}', r"a\.json"),
        ("a.json", '{"x": "a"}', r"a\.json"),
        ("a.json", '{"0": []}', r"a\.json"),
        ("a.txt", "", r"a\.txt"),
        ("a.txt", "n1 a\nn1 b\n", "'n1'"),
    ],
)
def test_a_file_that_is_not_a_table(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        classes.read(tmp_path / name)


def test_a_table_in_the_root_is_found_and_one_given_wins(tmp_path: Path) -> None:
    assert classes.find(tmp_path) is None
    (tmp_path / "class_indices.json").write_text('{"0": "json"}')
    assert classes.find(tmp_path) == classes.from_ids(["json"])
    (tmp_path / "synset_words.txt").write_text("n1 text")
    assert classes.find(tmp_path) == ClassTable(("n1",), ("text",))
    given = str(tmp_path / "class_indices.json")
    assert classes.find(tmp_path, given) == classes.from_ids(["json"])
    with pytest.raises(InputError, match=r"none\.txt"):
        classes.find(tmp_path, "none.txt")


def test_labels_of_another_table() -> None:
    labels = ClassTable(("n3", "n1"), ("three", "one"))
    assert classes.from_ids(["n1", "n2"]).with_labels_of(labels) == (("n1", "n2"), ("one", "n2"))


def test_outputs_without_a_class_are_unused() -> None:
    table = ClassTable(("n1", "n2"), ("one", "two"))
    assert table.padded(4) == (
        ("n1", "n2", "unused 2", "unused 3"),
        ("one", "two", "unused 2", "unused 3"),
    )
    assert table.padded(2) == table


@pytest.mark.parametrize(
    ("found", "difference"),
    [
        ("abc", ""),
        ("abd", "missing: 'c'; new: 'd'"),
        ("ab", "missing: 'c'"),
        ("abcdefghij", "new: 'd', 'e', 'f', 'g', 'h' and 2 more"),
        ("acb", "in another order: class 1 is 'c', not 'b'"),
    ],
)
def test_the_classes_that_differ_are_named(found: str, difference: str) -> None:
    assert classes.difference("abc", found) == difference


def test_outputs_without_a_class_are_no_difference() -> None:
    trained = classes.from_ids("abc").padded(5).ids
    assert classes.difference(trained, "abc") == ""
    assert classes.difference(trained, classes.from_ids("ab").padded(5).ids) == "missing: 'c'"
