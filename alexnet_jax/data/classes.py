"""Class tables: what the outputs of a net stand for, from the files the field keeps them in."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_jax.errors import InputError

# Looked for in a set's root, in this order.
FILE_NAMES = ("synset_words.txt", "imagenet_class_index.json", "class_indices.json")


class ClassTable(NamedTuple):
    """The classes of a set, by index.

    Attributes:
      ids: unique keys: WordNet ids as "n01440764", folder names or numbers.
      words: what to show for each. Words repeat ("crane" twice in ImageNet): they are no keys.
    """

    ids: tuple[str, ...]
    words: tuple[str, ...]

    def with_words_of(self, other: "ClassTable") -> "ClassTable":
        """Returns the same classes, worded as the other table words those that it has."""
        known = dict(zip(other.ids, other.words, strict=True))
        words = zip(self.ids, self.words, strict=True)
        return ClassTable(self.ids, tuple(known.get(name, own) for name, own in words))


def plain(ids: Sequence[str]) -> ClassTable:
    """Returns a table whose words are the ids themselves."""
    return ClassTable(tuple(ids), tuple(ids))


def find(root: Path, given: str | None) -> ClassTable | None:
    """Reads the table given, else the one that lies in `root` under a known name, else None."""
    if given:
        return read(Path(given).expanduser())
    found = [root / name for name in FILE_NAMES if (root / name).is_file()]
    return read(found[0]) if found else None


def read(path: Path) -> ClassTable:
    """Reads a class table.

    Args:
      path: Caffe's synset_words.txt, a line "n01440764 tench, Tinca tinca" a class in the order of
        the indices; Keras's imagenet_class_index.json, {"0": ["n01440764", "tench"]}; or
        class_indices.json, {"0": "daisy"} or the other way round.

    Raises:
      InputError: the file is missing, of another kind, or does not number its classes from 0 on.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows = _of_json(json.loads(text)) if path.suffix == ".json" else _of_lines(text)
    except OSError as error:
        raise InputError(f"The class table {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path} is no class table: write a line 'n01440764 tench' a class, or JSON such as "
            '{"0": ["n01440764", "tench"]} or {"0": "daisy"}, numbered from 0 on.'
        ) from error
    if not rows:
        raise InputError(f"The class table {path} is empty.")
    repeated, times = Counter(name for name, _ in rows).most_common(1)[0]
    if times > 1:
        raise InputError(f"The class table {path} has the class {repeated!r} {times} times.")
    ids, words = zip(*rows, strict=True)
    return ClassTable(ids, words)


def _of_lines(text: str) -> list[tuple[str, str]]:
    """Reads (id, words) a line; a line of one word is both."""
    rows = []
    for line in text.splitlines():
        name, _, words = line.strip().partition(" ")
        if name:
            rows.append((name, words.strip() or name))
    return rows


def _of_json(tree: Any) -> list[tuple[str, str]]:
    """Reads (id, words) in the order of the indices, whichever side these stand on."""
    if all(isinstance(value, int) for value in tree.values()):
        tree = {index: name for name, index in tree.items()}
    by_index = {int(index): value for index, value in tree.items()}
    rows = [by_index[index] for index in range(len(tree))]
    return [(row, row) if isinstance(row, str) else (str(row[0]), str(row[1])) for row in rows]
