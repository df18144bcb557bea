"""Records of prepared datasets, against the message classes of TFDS."""

import pytest
from tensorflow_datasets.proto import tf_example_pb2

from alexnet_jax.data import example_records
from alexnet_jax.data.example_records import Record

RECORDS = [
    Record("train/n01/a.jpg", bytes(range(256)) * 200, 999),
    Record("ä猫.png", b"x", 0),
    Record("", b"", -1),
    Record("a" * 127, b"y" * 128, 127),
    Record("a" * 128, b"y" * 16384, 128),
]


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_tfds_reads_what_is_written(record: Record) -> None:
    example = tf_example_pb2.Example.FromString(example_records.encode(record))
    features = example.features.feature
    assert set(features) == {"file_name", "image", "label"}
    assert features["file_name"].bytes_list.value == [record.file_name.encode()]
    assert features["image"].bytes_list.value == [record.image]
    assert features["label"].int64_list.value == [record.label]


@pytest.mark.parametrize("record", RECORDS, ids=range(len(RECORDS)))
def test_what_tfds_writes_is_read(record: Record) -> None:
    example = tf_example_pb2.Example()
    features = example.features.feature
    features["label"].int64_list.value.append(record.label)
    features["image"].bytes_list.value.append(record.image)
    features["file_name"].bytes_list.value.append(record.file_name.encode())
    assert example_records.decode(example.SerializeToString()) == record


def test_names_that_are_not_unicode() -> None:
    record = Record("\udcff.png", b"x", 1)
    assert example_records.decode(example_records.encode(record)) == record


def test_a_truncated_record_is_not_an_example() -> None:
    whole = example_records.encode(RECORDS[1])
    for length in range(len(whole)):
        with pytest.raises(ValueError, match=r"\w"):
            example_records.decode(whole[:length])
    with pytest.raises(ValueError, match=r"\w"):
        example_records.decode(tf_example_pb2.Example().SerializeToString())
