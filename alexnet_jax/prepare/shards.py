"""One shard of a prepared dataset: read, resize, write, record. What a worker process runs."""

import contextlib
import functools
import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data import example_records, images
from alexnet_jax.data.example_records import Record
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.listing import read_file
from alexnet_jax.data.source import Source
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Inputs, name_of
from alexnet_jax.runtime.files import write_atomically

# One record per group, for random access; JPEG does not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"
_CHUNK = 16  # images read at a time, for the sake of sources that are stored in blocks


@dataclass(frozen=True)
class ImageFormat:
    """How images are stored.

    Attributes:
      size: pixels of the square, or of the shorter side.
      channels: 1 or 3.
      resize: a key of images.RESIZERS.
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
        pixels = np.ascontiguousarray(images.RESIZERS[self.resize](data, self.size))
        if self.format == "raw":
            return pixels.tobytes(), pixels
        stored = images.encode_jpeg(pixels, self.quality)
        decoded = images.decode_jpeg(stored, self.channels)  # statistics are of images as stored
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


class ShardInfo(NamedTuple):
    """What is known of a complete shard, or of several.

    Attributes:
      image: [height, width, channels], the sum of the images.
      products: int64[channels, channels], the sum over all pixels of color times color.
      sizes: int64[shards, 3], the images of each shard, their bytes, and the bytes of its file.
      indices: int64[n], the index in the split of each image, in the order of the shards.
      labels: int32[n].
      checksums: uint64[n], of the data that the images were made of.
      unreadable: str[m, 2], name and reason of each image left out.
    """

    image: np.ndarray
    products: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray
    labels: np.ndarray
    checksums: np.ndarray
    unreadable: np.ndarray

    def save(self, path: Path) -> None:
        """Writes the file atomically."""
        file = io.BytesIO()
        np.savez(file, **self._asdict())
        write_atomically(path, file.getvalue())

    @classmethod
    def load(cls, jobs: Iterable[ShardJob]) -> "ShardInfo":
        """Reads what `save` wrote of these shards, at least one, one at a time, and joins it."""
        return functools.reduce(cls._join, map(cls._load, jobs))

    @classmethod
    def _load(cls, job: ShardJob) -> "ShardInfo":
        with np.load(job.info) as arrays:
            return cls(**arrays)

    def _join(self, other: "ShardInfo") -> "ShardInfo":
        image = self.image.astype(np.int64) + other.image  # a shard's own sum is uint32
        rest = (np.concatenate(pair) for pair in zip(self[2:], other[2:], strict=True))
        return ShardInfo(image, self.products + other.products, *rest)


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
        info = _fill(inputs[job.split], image_format, job._replace(data=partial), tick)
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
    source: Source, image_format: ImageFormat, job: ShardJob, tick: Callable[[], None]
) -> ShardInfo:
    statistics = RunningStatistics.zero(image_format.shape, np.uint32)
    written: list[tuple[int, int, int]] = []
    checksums, unreadable = [], []
    with _open_writer(job.data, image_format.format) as write:
        for index, data, label in _read(source, job.indices):
            name = name_of(source, index)
            try:
                stored, pixels = image_format.convert(data)
            except UnreadableImage as error:
                unreadable.append((name, _reason(source.path(index), str(error))))
            else:
                write(Record(name, stored, label))
                statistics.add(pixels)
                written.append((index, label, len(stored)))
                checksums.append(hashlib.blake2b(data, digest_size=8).digest())
            tick()
    indices, labels, sizes = np.array(written, np.int64).reshape(-1, 3).T
    return ShardInfo(
        statistics.image,
        statistics.products,
        np.array([[len(written), sizes.sum(), job.data.stat().st_size]]),
        indices,
        labels.astype(np.int32),
        np.frombuffer(b"".join(checksums), np.uint64),
        np.array(unreadable, str).reshape(-1, 2),
    )


def _read(source: Source, indices: np.ndarray) -> Iterator[tuple[int, Any, int]]:
    """Yields index, data and label of each image."""
    for start in range(0, len(indices), _CHUNK):
        chunk = indices[start : start + _CHUNK]
        for index, (data, label) in zip(chunk.tolist(), source.read(chunk), strict=True):
            yield index, data, label


def _reason(path: bytes | None, reason: str) -> str:
    """Returns why a file cannot be read, or else the reason given."""
    try:
        if path is not None:
            read_file(path, size=0)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return reason


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
        writer = ArrayRecordWriter(os.fsencode(path), _WRITER_OPTIONS)
        yield lambda record: writer.write(example_records.encode(record))
        writer.close()
    except RuntimeError as error:  # array_record's; the first part of its message is the reason
        raise OSError(str(error).split(";")[0]) from error
