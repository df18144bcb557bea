"""A part of a split in TFDS's notation: 'train[:90%]', 'val[100:200]'."""

import re

import numpy as np

from alexnet_jax.errors import InputError

_NOTATION = re.compile(r"([^\[\]]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def parse(text: str) -> tuple[str, str | None, str | None]:
    """Returns (name, first, end) of a split; the bounds as written, None where left out.

    Raises:
      InputError: the text is not in the notation.
    """
    match = _NOTATION.fullmatch(text)
    if not match:
        raise InputError(
            f"The split {text!r} cannot be read: write a name, or a part as in 'train[:90%]'."
        )
    return match[1], match[2], match[3]


def is_whole(text: str) -> bool:
    """Tells whether a split is named without bounds."""
    return parse(text)[1:] == (None, None)


def indices(text: str, count: int) -> np.ndarray:
    """Returns the indices that a split's notation takes of `count` examples.

    Percentages are rounded to the nearest example, as TFDS rounds them, so that 'train[:90%]' and
    'train[90%:]' are disjoint and together whole.

    Raises:
      InputError: the notation is wrong, or the part is empty.
    """
    _, first, end = parse(text)
    start = 0 if first is None else _bound(first, count)
    stop = count if end is None else _bound(end, count)
    if start >= stop:
        raise InputError(f"The split {text!r} of {count} examples is empty.")
    return np.arange(start, stop)


def _bound(text: str, count: int) -> int:
    amount = int(text.removesuffix("%"))
    if text.endswith("%"):
        amount = round(amount * count / 100)
    return min(max(amount + count if amount < 0 else amount, 0), count)
