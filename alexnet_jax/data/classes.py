"""Class tables: what the outputs of a model mean, from the usual files."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from alexnet_jax.errors import InputError

# Looked for in a dataset's root, in this order.
FILE_NAMES = ("synset_words.txt", "imagenet_class_index.json", "class_indices.json")


class ClassTable(NamedTuple):
    """The classes of a dataset, by index.

    Attributes:
      ids: unique keys: WordNet ids such as "n01440764", folder names or numbers.
      labels: the text to show for each; may repeat ("crane" twice in ImageNet).
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def with_labels_of(self, other: "ClassTable | None") -> "ClassTable":
        """Returns the same classes with the other table's labels for the ids it knows."""
        known = dict(zip(*other, strict=True)) if other else {}
        labels = (known.get(key, own) for key, own in zip(*self, strict=True))
        return ClassTable(self.ids, tuple(labels))

    def padded(self, outputs: int) -> "ClassTable":
        """Returns the table of a model's outputs; those without a class are named "unused 3"."""
        unused = tuple(f"unused {index}" for index in range(len(self.ids), outputs))
        return ClassTable(self.ids + unused, self.labels + unused)


def difference(trained: Sequence[str], found: Sequence[str]) -> str:
    """Returns how the classes of a dataset differ from those trained on, "" if they do not.

    Outputs without a class are ignored.

    Args:
      trained: the classes of the run, in the order of the outputs.
      found: those of the dataset.
    """
    trained, found = (
        [name for index, name in enumerate(names) if name != f"unused {index}"]
        for names in (trained, found)
    )
    parts = []
    for what, names, known in (("missing", trained, set(found)), ("new", found, set(trained))):
        if odd := [repr(name) for name in names if name not in known]:
            more = f" and {len(odd) - 5:,} more" if len(odd) > 5 else ""
            parts.append(f"{what}: {', '.join(odd[:5])}{more}")
    if not parts and trained != found:
        index = next(i for i, (a, b) in enumerate(zip(trained, found, strict=False)) if a != b)
        parts.append(f"in another order: class {index} is {found[index]!r}, not {trained[index]!r}")
    return "; ".join(parts)


def from_ids(ids: Iterable[str]) -> ClassTable:
    """Returns a table whose labels are the ids themselves."""
    return ClassTable(*[tuple(ids)] * 2)


def imagenet() -> ClassTable:
    """Returns the 1,000 classes of ILSVRC-2012 in the order of torchvision, Caffe and Keras."""
    return read(Path(__file__).with_name("imagenet_classes.txt"))


def find(root: Path, given: str | None = None) -> ClassTable | None:
    """Reads the table given, else the one in `root` under a known name; None without either."""
    found = (root / name for name in FILE_NAMES if (root / name).is_file())
    path = Path(given).expanduser() if given else next(found, None)
    return read(path) if path else None


def read(path: Path) -> ClassTable:
    """Reads a class table.

    Args:
      path: Caffe's synset_words.txt, a line "n01440764 tench, Tinca tinca" for each class in the
        order of the indices; Keras's imagenet_class_index.json, {"0": ["n01440764", "tench"]}; or
        class_indices.json, {"0": "daisy"} or the reverse.

    Raises:
      InputError: the file is missing, of another kind, or does not number its classes from 0.
    """
    try:
        text = unicodedata.normalize("NFC", path.read_text(encoding="utf-8"))
        rows = _of_json(json.loads(text)) if path.suffix == ".json" else _of_lines(text)
    except OSError as error:
        raise InputError(f"The class table {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(
            f"{path} is not a class table: write a line 'n01440764 tench' for each class, or JSON "
            'such as {"0": ["n01440764", "tench"]} or {"0": "daisy"}, numbered from 0.'
        ) from error
    if not rows:
        raise InputError(f"The class table {path} is empty.")
    repeated, times = Counter(name for name, _ in rows).most_common(1)[0]
    if times > 1:
        raise InputError(f"The class table {path} has the class {repeated!r} {times} times.")
    return ClassTable(*zip(*rows, strict=True))


def _of_lines(text: str) -> list[tuple[str, str]]:
    """Reads an id and a label from each line; a line of one word is both."""
    rows = (line.strip().partition(" ") for line in text.splitlines())
    return [(name, label.strip() or name) for name, _, label in rows if name]


def _of_json(tree: Any) -> list[tuple[str, str]]:
    """Reads ids and labels in the order of the indices, which are the keys or the values."""
    if all(isinstance(value, int) for value in tree.values()):
        tree = {index: name for name, index in tree.items()}
    by_index = {int(index): value for index, value in tree.items()}
    rows = [by_index[index] for index in range(len(tree))]
    return [(row, row) if isinstance(row, str) else (str(row[0]), str(row[1])) for row in rows]
