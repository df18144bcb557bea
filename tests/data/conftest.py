"""Small sets of real pictures, to be prepared."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.inputs import FilePart, Inputs

SIZES = ((40, 30), (30, 40), (24, 24), (50, 33))


def photograph(number: int) -> bytes:
    """A smooth picture, as JPEG; every number gives another."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(coarse).resize(SIZES[number % 4], Image.Resampling.BICUBIC)
    picture.save(file, "JPEG", quality=90)
    return file.getvalue()


@pytest.fixture
def make_inputs(tmp_path: Path) -> Callable[..., Inputs]:
    """Returns (training pictures, validation pictures) -> inputs of three classes.

    Further arguments {name: bytes} replace files: 'train/0.jpg' and so on.
    """

    def make(train: int = 20, val: int = 4, **replaced: bytes) -> Inputs:
        splits, number = {}, 0
        for split, count in (("train", train), ("val", val)):
            folder = tmp_path / "pictures" / split
            folder.mkdir(parents=True, exist_ok=True)
            splits[split] = []
            for place in range(count):
                name = f"{split}/{place}.jpg"
                path = folder / f"{place}.jpg"
                path.write_bytes(replaced.get(name, photograph(number)))
                splits[split].append(FilePart(name, place % 3, str(path)))
                number += 1
        table = ClassTable(("n1", "n2", "n3"), ("one", "two", "three"))
        return Inputs(table, splits)

    return make
