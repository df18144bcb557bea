"""One shard of a prepared set: read, resize, write, record. What a worker process runs."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data import example_records, images
from alexnet_jax.data.example_records import Record
from alexnet_jax.data.images import UnreadableImage, decode_jpeg, encode_jpeg
from alexnet_jax.data.listing import read_file
from alexnet_jax.data.source import RawExample, Source
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Inputs
from alexnet_jax.runtime.files import write_atomically

RESIZERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "crop": images.resize_and_crop,
    "warp": images.warp,
    "short_side": images.resize_short_side,
}
# One record per group, for random access; JPEG does not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class ImageFormat:
    """How images are stored.

    Attributes:
      size: pixels of the square, or of the shorter side.
      channels: 1 or 3.
      resize: a key of RESIZERS.
      format: "jpeg" or "raw".
      quality: of the JPEGs, 1 to 100.
    """

    size: int
    channels: int
    resize: str
    format: str
    quality: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the square that statistics are taken of."""
        return self.size, self.size, self.channels

    def convert(self, data: Any) -> tuple[bytes, np.ndarray]:
        """Returns the stored bytes of an image and the central square that they decode to.

        Args:
          data: the bytes of an image file, or uint8[height, width, channels].

        Raises:
          UnreadableImage: the data cannot be decoded.
        """
        if not isinstance(data, np.ndarray):
            data = images.decode(bytes(data), self.channels)
        pixels = np.ascontiguousarray(RESIZERS[self.resize](data, self.size))
        if self.format == "raw":
            return pixels.tobytes(), pixels
        stored = encode_jpeg(pixels, self.quality)
        decoded = decode_jpeg(stored, self.channels)  # statistics are of the images as stored
        return stored, images.resize_and_crop(decoded, self.size)


class ShardJob(NamedTuple):
    """One shard to be written.

    Attributes:
      split: the split.
      indices: int[n], which of its images, in order.
      data: the shard's file.
      info: the file of its ShardInfo; it exists only once the shard is complete.
    """

    split: str
    indices: np.ndarray
    data: Path
    info: Path


@dataclass
class ShardInfo:
    """What is known of a complete shard.

    Attributes:
      statistics: sums over its images.
      indices: int64[n], the index in the split of each image, in the order of the shard.
      labels: int32[n].
      checksums: uint64[n], of the data that the images were made of.
      num_bytes: uint64[2], of the images and of the shard's file.
      unreadable: (name, reason) of each image left out.
    """

    statistics: RunningStatistics
    indices: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    num_bytes: np.ndarray
    unreadable: list[tuple[str, str]]

    def save(self, path: Path) -> None:
        """Writes the file atomically."""
        arrays = vars(self) | {
            "statistics": self.statistics.image,
            "products": self.statistics.products,
            "unreadable": np.array(json.dumps(self.unreadable)),
        }
        file = io.BytesIO()
        np.savez(file, **arrays)
        write_atomically(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "ShardInfo":
        """Reads what `save` wrote."""
        with np.load(path) as file:
            arrays = dict(file)
        image, products = arrays.pop("statistics").astype(np.int64), arrays.pop("products")
        unreadable = [tuple(problem) for problem in json.loads(str(arrays.pop("unreadable")))]
        statistics = RunningStatistics(image, products, len(arrays["labels"]))
        return cls(statistics, unreadable=unreadable, **arrays)


def write_shard(
    inputs: Inputs, image_format: ImageFormat, job: ShardJob, tick: Callable[[], None]
) -> int:
    """Writes one shard and then its ShardInfo; a file under its own name is always complete.

    Args:
      inputs: where the images come from.
      image_format: how they are stored.
      job: the shard.
      tick: called after each image.

    Returns:
      How many images were unreadable.

    Raises:
      InputError: the shard cannot be written; nothing of it is left.
    """
    partial = job.info.with_suffix(".data")
    try:
        info = _fill(inputs, image_format, job._replace(data=partial), tick)
        os.replace(partial, job.data)
        info.save(job.info)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{job.data.parent} cannot be written ({error.strerror or error}): free some space or "
            "set another --config.prepare.output. Complete shards are kept."
        ) from error
    return len(info.unreadable)


def _fill(
    inputs: Inputs, image_format: ImageFormat, job: ShardJob, tick: Callable[[], None]
) -> ShardInfo:
    statistics = RunningStatistics.zero(image_format.shape, np.uint32)
    indices, labels, checksums, unreadable, total = [], [], [], [], 0
    with _open_writer(job.data, image_format.format) as write:
        for index in job.indices.tolist():
            name = inputs.name_of(job.split, index)
            try:
                data, label = read_image(inputs.splits[job.split], index)
                stored, shown = image_format.convert(data)
            except UnreadableImage as error:
                unreadable.append((name, str(error)))
            else:
                write(Record(name, stored, label))
                statistics.add(shown)
                indices.append(index)
                labels.append(label)
                checksums.append(hashlib.blake2b(data, digest_size=8).digest())
                total += len(stored)
            tick()
    return ShardInfo(
        statistics,
        np.array(indices, np.int64),
        np.array(labels, np.int32),
        np.frombuffer(b"".join(checksums), np.uint64),
        np.array([total, job.data.stat().st_size], np.uint64),
        unreadable,
    )


def read_image(source: Source, index: int) -> RawExample:
    """Reads one image.

    Raises:
      UnreadableImage: its file is missing, empty or cannot be read; the message is the reason.
    """
    (example,) = source.read(np.array([index]))
    path = source.path(index)
    if not len(example.data) and path is not None:
        try:
            read_file(path, size=0)
        except OSError as error:
            raise UnreadableImage(error.strerror) from error
    return example


@contextlib.contextmanager
def _open_writer(path: Path, format_name: str) -> Iterator[Callable[[Record], object]]:
    """Gives a function that appends a record to the file of a shard.

    Raises:
      OSError: the file cannot be written.
    """
    if format_name == "raw":
        with path.open("wb") as file:
            yield lambda record: file.write(record.image)
        return
    try:
        writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
        yield lambda record: writer.write(example_records.encode(record))
        writer.close()
    except RuntimeError as error:  # array_record's; the first part of its message is the reason
        raise OSError(str(error).split(";")[0]) from error
