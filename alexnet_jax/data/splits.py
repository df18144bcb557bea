"""Names and parts of splits: 'validation' for a folder 'val', and TFDS's notation 'train[:90%]'."""

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
    start, stop = _bound(match["start"] or "0", count), _bound(match["stop"] or "100%", count)
    if start >= stop:
        raise InputError(f"The split {text!r} of {count} examples is empty.")
    return np.arange(start, stop)


def _match(text: str) -> re.Match[str]:
    match = _NOTATION.fullmatch(text)
    if not match:
        raise InputError(
            f"The split {text!r} cannot be parsed: write a name, or a part as in 'train[:90%]'."
        )
    return match


def _bound(text: str, count: int) -> int:
    amount = int(text.removesuffix("%"))
    if text.endswith("%"):
        amount = round(amount * count / 100)
    return min(max(amount + count if amount < 0 else amount, 0), count)


def mixed_order(labels: np.ndarray) -> np.ndarray:
    """Orders examples so that every stretch holds the classes in their shares.

    Files and arrays are stored class by class: nine tenths of those would lack some classes.

    Args:
      labels: int[n], class indices in any order.

    Returns:
      int[n], a permutation; examples of one class keep their order.
    """
    counts = np.bincount(labels)
    by_class = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - starts[labels[by_class]]
    return np.argsort((rank + 0.5) / counts[labels], kind="stable")


def kind_of(name: str) -> str | None:
    """Returns "train", "val" or "test" for what the field calls its splits, else None."""
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
    for wanted in (kind, "test" if kind == "val" else None):
        if wanted:
            found = found or [name for name in names if kind_of(name) == wanted]
    if len(found) > 1:
        raise InputError(
            f"Several splits match {split!r} ({', '.join(found)}): choose one with "
            "--config.data.train_split or --config.data.eval_split."
        )
    return found[0] if found else None
