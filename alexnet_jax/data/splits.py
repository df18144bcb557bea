"""Names and parts of splits: 'validation' for a folder 'val', and TFDS's notation 'train[:90%]'."""

import hashlib
import re
from collections.abc import Iterable

import numpy as np

from alexnet_jax.errors import InputError

_NOTATION = re.compile(r"(?P<name>[^\[\]]+)(?P<part>\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")
_KINDS = re.compile(
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))"
    r"[-_ ]?(?:set|split|data|images|imgs)?",
    re.IGNORECASE,
)


def parse(text: str) -> tuple[str, str]:
    """Returns the name of a split and its part in brackets, '' for the whole split.

    Raises:
      InputError: the text is not in the notation.
    """
    match = _match(text)
    return match["name"], match["part"] or ""


def indices(text: str, count: int) -> np.ndarray:
    """Returns the indices that a split's notation takes of `count` examples.

    Percentages are rounded to the nearest example, as TFDS rounds them, so that 'train[:90%]' and
    'train[90%:]' are disjoint and together complete.

    Raises:
      InputError: the notation is wrong, or the part is empty.
    """
    match = _match(text)
    chosen = np.arange(count)[slice(_bound(match["start"], count), _bound(match["stop"], count))]
    if not len(chosen):
        raise InputError(f"The split {text!r} of {count} examples is empty.")
    return chosen


def _match(text: str) -> re.Match[str]:
    match = _NOTATION.fullmatch(text)
    if not match:
        raise InputError(
            f"The split {text!r} cannot be parsed: write a name, or a part as in 'train[:90%]'."
        )
    return match


def _bound(text: str | None, count: int) -> int | None:
    if text and text.endswith("%"):
        return round(int(text[:-1]) * count / 100)
    return int(text) if text else None


def mixed_order(labels: np.ndarray) -> np.ndarray:
    """Orders examples so that every stretch holds the classes in their shares.

    Files and arrays are stored class by class: nine tenths of those would lack some classes.

    Args:
      labels: int[n], class indices in any order.

    Returns:
      int[n], a permutation; examples of one class keep their order.
    """
    return np.argsort((rank_in_class(labels) + 0.5) / np.bincount(labels)[labels], kind="stable")


def held_out(names: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """Marks about `share` of each class, at least one image of two: bool[n].

    The choice depends on checksums of the names, hence only on a class's own images; one more
    image among them moves at most one other to or from the held-out part.

    Args:
      names: bytes of each image's name.
      labels: int32[n].
      share: 0 to 1.
    """
    checksums = [hashlib.blake2b(name, digest_size=8).digest() for name in names.tolist()]
    order = np.frombuffer(b"".join(checksums), ">u8").astype(np.uint64)
    counts = np.bincount(labels)
    wanted = np.minimum(np.maximum(np.rint(share * counts), 1), counts - 1)
    return rank_in_class(labels, order) < wanted[labels]


def rank_in_class(labels: np.ndarray, *order: np.ndarray) -> np.ndarray:
    """Returns how many examples of its own class come before each one: int64[n].

    Args:
      labels: int[n], class indices.
      order: numbers that sort the examples of a class; without any they stay as they are.
    """
    counts = np.bincount(labels)
    rank = np.empty(len(labels), np.int64)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    rank[np.lexsort((*order, labels))] = np.arange(len(labels)) - first
    return rank


def kind_of(name: str) -> str | None:
    """Returns "train", "val" or "test" for the common names of splits, else None."""
    match = _KINDS.fullmatch(name)
    return match.lastgroup if match else None


def find(split: str, names: Iterable[str]) -> str | None:
    """Returns the name by which a dataset has a split, None if it has none.

    Tried in order: the exact name, the name in another case, a name of the same kind such as "val"
    for "validation", and "test" in place of a validation split.

    Raises:
      InputError: several names match equally well.
    """
    names, kind = list(names), kind_of(split)
    found = [name for name in names if name == split]
    found = found or [name for name in names if name.lower() == split.lower()]
    for wanted in filter(None, (kind, "test" if kind == "val" else None)):
        found = found or [name for name in names if kind_of(name) == wanted]
    if len(found) > 1:
        raise InputError(
            f"Several splits match {split!r} ({', '.join(found)}): choose one with "
            "--config.data.train_split or --config.data.eval_split."
        )
    return found[0] if found else None


def choose(split: str, names: Iterable[str], where: str, fix: str = "") -> str:
    """Returns the name that `find` finds.

    Args:
      split: as requested.
      names: the splits of the dataset.
      where: what an error calls the dataset.
      fix: what an error says to do; "": to choose another split.

    Raises:
      InputError: there is no such split, or several match equally well.
    """
    name = find(split, names)
    if name is None:
        fix = fix or "choose with --config.data.train_split and --config.data.eval_split"
        raise InputError(f"{where} has no split {split!r}, only [{', '.join(names)}]: {fix}.")
    return name
