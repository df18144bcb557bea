"""One shard of a prepared set: read, resize, write, take notes. What a worker process runs."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter

from alexnet_jax.data import example_records, images
from alexnet_jax.data.example_records import Record
from alexnet_jax.data.images import UnreadableImage, decode_jpeg, encode_jpeg
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.errors import InputError
from alexnet_jax.prepare.inputs import Picture

RESIZERS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "crop": images.resize_and_crop,
    "warp": images.warp,
    "short_side": images.resize_short_side,
}
# A record a group, for random access; JPEG does not compress further.
_WRITER_OPTIONS = "group_size:1,uncompressed"


@dataclass(frozen=True)
class ImageFormat:
    """How pictures are made.

    Attributes:
      size: pixels of the square, or of the shorter side.
      channels: 1 or 3.
      resize: a row of RESIZERS.
      format: "jpeg" or "raw".
      quality: of the JPEGs, 1 to 100.
    """

    size: int
    channels: int
    resize: str
    format: str
    quality: int

    def make(self, data: bytes) -> tuple[bytes, np.ndarray]:
        """Returns the stored bytes of a picture file and the central square that they show.

        Raises:
          UnreadableImage: the data cannot be decoded.
        """
        pixels = RESIZERS[self.resize](images.decode(data, self.channels), self.size)
        pixels = np.ascontiguousarray(pixels)
        if self.format == "raw":
            return pixels.tobytes(), pixels
        stored = encode_jpeg(pixels, self.quality)
        shown = decode_jpeg(stored, self.channels)  # the statistics are of the set as it stands
        return stored, images.resize_and_crop(shown, self.size)


class ShardJob(NamedTuple):
    """One shard to be written.

    Attributes:
      data: the shard's file.
      note: the file of what is known of the shard; it stands only once the shard is whole.
      pictures: what goes into the shard, in order.
      recipe: how pictures are made.
    """

    data: Path
    note: Path
    pictures: Sequence[Picture]
    recipe: ImageFormat


@dataclass
class ShardInfo:
    """What is known of a finished shard.

    Attributes:
      moments: sums over its pictures.
      labels: int32[n] in the order of the shard.
      checksums: uint64[n], of the files the pictures came from.
      sizes: uint64[2], bytes of the pictures and of the shard's file.
      unreadable: (name, reason) of the pictures left out.
    """

    moments: RunningStatistics
    labels: np.ndarray
    checksums: np.ndarray
    sizes: np.ndarray
    unreadable: list[tuple[str, str]]

    def save(self, path: Path) -> None:
        """Writes the note so that it stands whole or not at all."""
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                image=self.moments.image,
                products=self.moments.products,
                labels=self.labels,
                checksums=self.checksums,
                sizes=self.sizes,
                unreadable=np.array(json.dumps(self.unreadable)),
            )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> "ShardInfo":
        """Reads what `save` wrote."""
        with np.load(path) as arrays:
            labels = arrays["labels"]
            image = arrays["image"].astype(np.int64)
            return cls(
                RunningStatistics(image, arrays["products"], len(labels)),
                labels,
                arrays["checksums"],
                arrays["sizes"],
                [(name, reason) for name, reason in json.loads(str(arrays["unreadable"]))],
            )


def write_shard(task: ShardJob, tick: Callable[[], None] = lambda: None) -> int:
    """Writes one shard and then its note; a file under its own name is always whole.

    Args:
      task: the shard.
      tick: called after each picture.

    Returns:
      How many pictures were unreadable.

    Raises:
      InputError: the shard cannot be written; nothing of it is left.
    """
    partial = task.note.with_suffix(".data")
    try:
        note = _fill(task, partial, tick)
        os.replace(partial, task.data)
        note.save(task.note)
    except _CannotWriteError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{task.data.parent} cannot be written ({error}): make room or take another "
            "--config.prepare.output. Shards that are done are kept."
        ) from error
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{task.data.parent} cannot be written ({error.strerror}).") from error
    return len(note.unreadable)


def _fill(task: ShardJob, partial: Path, tick: Callable[[], None]) -> ShardInfo:
    recipe = task.recipe
    moments = RunningStatistics.zero((recipe.size, recipe.size, recipe.channels), np.uint32)
    labels, checksums, unreadable, total = [], [], [], 0
    with _open_writer(partial, recipe.format) as write:
        for picture in task.pictures:
            try:
                data, label = picture.read()
                stored, shown = recipe.make(data)
            except UnreadableImage as error:
                unreadable.append((picture.name, str(error)))
            except OSError as error:
                unreadable.append((picture.name, error.strerror or str(error)))
            else:
                write(picture.name, stored, label)
                moments.add(shown)
                labels.append(label)
                checksums.append(hashlib.blake2b(data, digest_size=8).digest())
                total += len(stored)
            tick()
    return ShardInfo(
        moments,
        np.array(labels, np.int32),
        np.frombuffer(b"".join(checksums), np.uint64),
        np.array([total, partial.stat().st_size], np.uint64),
        unreadable,
    )


class _CannotWriteError(Exception):
    """The shard's file cannot be written; the message is the reason."""


@contextlib.contextmanager
def _open_writer(path: Path, kind: str) -> Iterator[Callable[[str, bytes, int], object]]:
    """Gives a function of (name, picture, label) that appends to the file of a shard."""
    try:
        if kind == "raw":
            with path.open("wb") as file:
                yield lambda name, stored, label: file.write(stored)
        else:
            writer = ArrayRecordWriter(str(path), _WRITER_OPTIONS)
            yield lambda *parts: writer.write(example_records.encode(Record(*parts)))
            writer.close()
    except OSError as error:
        raise _CannotWriteError(error.strerror or str(error)) from error
    except RuntimeError as error:  # array_record's; the reason stands in its first part
        raise _CannotWriteError(str(error).split(";")[0]) from error
