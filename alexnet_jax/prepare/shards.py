"""Writes the shards of a prepared dataset: reads, resizes and stores images, in parallel."""

import contextlib
import functools
import hashlib
import io
import itertools
import multiprocessing
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data import images, listing
from alexnet_jax.data.example_records import Record, encode
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Inputs, name_of
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.runtime.worker_process import follow_parent

_CHUNK = 16  # images read together, which is faster where a source is stored in blocks


class ImageFormat(NamedTuple):
    """How images are stored.

    Attributes:
      size: side of the square in pixels, or the shorter side.
      channels: 1 or 3.
      resize: a key of images.PREPARED_RESIZERS.
      format: "jpeg" or "raw".
      quality: JPEG quality, 1 to 100.
    """

    size: int
    channels: int
    resize: str
    format: str
    quality: int

    def convert(self, data: Any) -> tuple[bytes, np.ndarray]:
        """Returns the stored bytes of an image and the central square that they decode to.

        Args:
          data: the bytes of an image file, or uint8[height, width, channels].

        Raises:
          UnreadableImage: the data cannot be decoded.
        """
        if not isinstance(data, np.ndarray):
            data = images.decode(bytes(data), self.channels)
        pixels = np.ascontiguousarray(images.PREPARED_RESIZERS[self.resize](data, self.size))
        if self.format == "raw":
            return pixels.tobytes(), pixels
        stored = images.encode_jpeg(pixels, self.quality)
        decoded = images.decode_jpeg(stored, self.channels)  # statistics are of images as stored
        return stored, images.resize_and_crop(decoded, self.size)


class PrepareOptions(NamedTuple):
    """How to write a dataset.

    Attributes:
      image_format: how images are stored.
      output: folder of the dataset, created if missing.
      shard_size: maximum number of images in a shard.
      processes: number of processes that write shards.
      max_unreadable: maximum share of all images that may be unreadable.
      progress: called with the number of images that this call has written, and will write.
    """

    image_format: ImageFormat
    output: Path
    shard_size: int
    processes: int
    max_unreadable: float
    progress: Callable[[int, int], None] = lambda done, total: None


class ShardJob(NamedTuple):
    """One shard to be written.

    Attributes:
      split: the split.
      indices: int[n], the images by their index in the split, in order.
      data: the shard's file.
      info: the file of its ShardInfo; it exists only once the shard is complete.
    """

    split: str
    indices: np.ndarray
    data: Path
    info: Path


# Metadata of a shard: its file, the number of its images, and the file's size.
_SHARD = np.dtype([("name", "U255"), ("examples", "i8"), ("bytes", "i8")])
# Metadata of an image: its index in the split, its label, its size in bytes as stored, and a
# checksum of the data that it was made from.
_EXAMPLE = np.dtype([("index", "i8"), ("label", "i4"), ("size", "i8"), ("checksum", "u8")])


class ShardInfo(NamedTuple):
    """Metadata of a complete shard, or of several.

    Attributes:
      image: [height, width, channels], the sum of the images.
      products: int64[channels, channels], the sum over all pixels of color times color.
      shards: _SHARD[shards], the metadata of each.
      examples: _EXAMPLE[n], the metadata of each image, in the order of the shards.
      unreadable: str[m, 2], [name, reason] of each image that was skipped.
    """

    image: np.ndarray
    products: np.ndarray
    shards: np.ndarray
    examples: np.ndarray
    unreadable: np.ndarray

    @classmethod
    def load(cls, jobs: Iterable[ShardJob]) -> "ShardInfo":
        """Reads the files of one or more shards, one at a time, and joins them."""
        files = (io.BytesIO(job.info.read_bytes()) for job in jobs)
        return functools.reduce(cls._join, (cls(**np.load(file)) for file in files))

    def _join(self, other: "ShardInfo") -> "ShardInfo":
        image = self.image.astype(np.int64) + other.image  # a shard's own sum is uint32
        rest = (np.concatenate(pair) for pair in zip(self[2:], other[2:], strict=True))
        return ShardInfo(image, self.products + other.products, *rest)


# Set in each worker process: writes a shard, counting its images for the progress.
_write: Callable[[ShardJob], ShardJob]


def write_shards(
    inputs: Inputs, options: PrepareOptions, jobs: Sequence[ShardJob]
) -> Generator[ShardJob, None, None]:
    """Writes the shards that are missing, several at a time.

    If the caller stops early, shards in progress are still completed.

    Args:
      inputs: the images; pickled once per process.
      options: how to write them.
      jobs: all shards.

    Yields:
      Every shard once it is complete, first those that already were.

    Raises:
      InputError: a worker process died.
      OSError: a shard cannot be written.
    """
    missing = [job for job in jobs if not job.info.exists()]
    yield from [job for job in jobs if job.info.exists()]
    total = sum(len(job.indices) for job in missing)
    write = functools.partial(write_shard, inputs, options.image_format)
    if min(options.processes, len(missing)) <= 1:
        done = itertools.count(1)
        yield from (write(lambda: options.progress(next(done), total), job) for job in missing)
        return
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    counter = context.Value("q", 0)
    pool = ProcessPoolExecutor(options.processes, context, _start_worker, (write, counter))
    try:
        waiting = {pool.submit(_work, job) for job in missing}
        while waiting:
            finished, waiting = wait(waiting, 0.5, FIRST_COMPLETED)
            options.progress(counter.value, total)
            yield from (future.result() for future in finished)
    except BrokenExecutor as error:
        raise InputError(
            "A process that prepared images was killed, perhaps because the machine ran out of "
            "memory: set fewer --config.prepare.processes. Complete shards are kept."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(write: Callable[..., ShardJob], counter: Any) -> None:
    def tick() -> None:
        with counter.get_lock():
            counter.value += 1

    global _write
    _write = functools.partial(write, tick)
    follow_parent()


def _work(job: ShardJob) -> ShardJob:
    return _write(job)


def write_shard(
    inputs: Inputs, image_format: ImageFormat, tick: Callable[[], None], job: ShardJob
) -> ShardJob:
    """Writes one shard and then its ShardInfo; files under their final names are complete.

    Args:
      inputs: the images.
      image_format: how they are stored.
      tick: called after each image.
      job: the shard.

    Returns:
      The shard.

    Raises:
      OSError: the shard cannot be written; no part of it is left.
    """
    source = inputs[job.split]
    chunks = np.split(job.indices, range(_CHUNK, len(job.indices), _CHUNK))
    examples = itertools.chain.from_iterable(map(source.read, chunks))
    size, channels = image_format.size, image_format.channels
    sums = RunningStatistics.zero((size, size, channels), np.uint32)
    rows, unreadable = [], []
    with _open_writer(job, image_format) as write:
        for index, (data, label) in zip(job.indices.tolist(), examples, strict=True):
            name = name_of(source, index)
            try:
                stored, pixels = image_format.convert(data)
            except images.UnreadableImage as error:
                unreadable.append((name, _reason(source.path(index), str(error))))
            else:
                write(Record(name, stored, label))
                sums.add(pixels)
                checksum = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
                rows.append((index, label, len(stored), checksum))
            tick()
    shards = np.array([(job.data.name, len(rows), job.data.stat().st_size)], _SHARD)
    problems = np.array(unreadable, str).reshape(-1, 2)
    info = ShardInfo(sums.image, sums.products, shards, np.array(rows, _EXAMPLE), problems)
    file = io.BytesIO()
    np.savez(file, **info._asdict())
    write_atomically(job.info, file.getvalue())
    return job


def _reason(path: bytes | None, reason: str) -> str:
    """Returns why a file cannot be read, or `reason` if it can be."""
    try:
        if path is not None:
            listing.read_file(path, size=0)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return reason


@contextlib.contextmanager
def _open_writer(job: ShardJob, image_format: ImageFormat) -> Iterator[Callable[[Record], object]]:
    """Yields a function that appends a record to a shard, whose file appears at the end.

    Raises:
      OSError: the file cannot be written.
    """
    partial = job.info.with_suffix(".data")
    try:
        if image_format.format == "raw":
            with partial.open("wb") as file:
                yield lambda record: file.write(record.image)
        else:
            # One record per group, for random access; JPEGs do not compress further.
            writer = ArrayRecordWriter(str(partial), "group_size:1,uncompressed")
            yield lambda record: writer.write(encode(record))
            writer.close()
        partial.replace(job.data)
    except RuntimeError as error:  # array_record's; the first part of its message is the reason
        raise OSError(str(error).split(";")[0]) from error
    finally:
        partial.unlink(missing_ok=True)
