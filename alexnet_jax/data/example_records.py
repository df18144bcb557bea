"""The records of a TFDS image dataset, tf.train.Example messages, written and read without TFDS.

TFDS's own message classes come only with all of TFDS, whose import takes a second and 100 MB in
each process that reads or writes images.
"""

from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

_PROTO = """
name: "example" package: "example" syntax: "proto3"
message_type { name: "Bytes"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
message_type { name: "Ints"
  field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
message_type { name: "Feature"
  field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".example.Bytes" }
  field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".example.Ints" } }
message_type { name: "Features"
  nested_type { name: "FeatureEntry" options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".example.Feature" } }
  field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE
    type_name: ".example.Features.FeatureEntry" } }
message_type { name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".example.Features" } }
"""
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(text_format.Parse(_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName("example.Example"))


class Record(NamedTuple):
    """One example of a prepared dataset.

    Attributes:
      file_name: the name of the image file it came from.
      image: the bytes of an image file.
      label: class index; -1: none.
    """

    file_name: str
    image: bytes
    label: int


def encode(record: Record) -> bytes:
    """Returns the example as a tf.train.Example, its features in the order of their names."""
    example = _Example()
    features = example.features.feature
    features["file_name"].bytes_list.value.append(record.file_name.encode(errors="surrogateescape"))
    features["image"].bytes_list.value.append(record.image)
    features["label"].int64_list.value.append(record.label)
    return bytes(example.SerializeToString(deterministic=True))


def decode(data: bytes) -> Record:
    """Reads an example that `encode`, or TFDS, wrote.

    Raises:
      ValueError: the data are not such an example.
    """
    try:
        features = _Example.FromString(data).features.feature
        (name,) = features["file_name"].bytes_list.value
        (image,) = features["image"].bytes_list.value
        (label,) = features["label"].int64_list.value
    except message.DecodeError as error:
        raise ValueError(str(error)) from error
    return Record(name.decode(errors="surrogateescape"), image, label)
