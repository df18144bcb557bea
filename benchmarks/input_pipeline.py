"""Speed of preparing and reading images, next to the bare decoder and PyTorch's DataLoader.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --root=DIR      your own images, any folder of JPEGs

Without a root, crops of the photographs that come with scikit-learn and matplotlib are used, at
ImageNet's most common size, 500 x 375. They are prepared to 256 x 256, as JPEGs of quality 95 and
as raw images, then read in shuffled batches, all methods interleaved in several rounds; medians are
reported. The shuffled stream is that of a dataset as long as ImageNet that repeats these images,
since the cost of an index depends on the length.

Rates "per core" are images per second of CPU time, summed over all threads: what one otherwise idle
core achieves, measured on a busy machine too. Ratios to PyTorch are of elapsed time, both using all
cores, PyTorch (Pillow) with the best of 0, 1 and 2 workers; both end with random crops of 224, half
of them flipped, as uint8 on the host. All files are in the page cache.
"""

import argparse
import contextlib
import functools
import hashlib
import io
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import simplejpeg
from PIL import Image

from alexnet_jax.data.images import decode, decode_jpeg, encode_jpeg, resize_and_crop
from alexnet_jax.data.pipeline import ReadOptions, TrainingBatches, read_ahead
from alexnet_jax.data.source import DataOptions, Source, Subset, open_source
from alexnet_jax.data.statistics import RunningStatistics
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.inputs import Row, from_rows
from alexnet_jax.prepare.shards import ImageFormat, PrepareOptions
from alexnet_jax.runtime import devices, huge_pages
from benchmarks.loop_overhead import Case, bare_rate, loop_rate

SIZE, CROP, BATCH, CLASSES = 256, 224, 64, 10
IMAGENET = 1_281_167
AHEAD = 4  # batches read before the clock starts
EPOCHS = 4  # so that the batch in progress when the clock stops has little weight
MAX_COSTED = 200  # images whose parts of preparing are timed
WORKERS = (0, 1, 2)  # of PyTorch's DataLoader

Seconds = tuple[float, float]  # elapsed, and of CPU time


@contextlib.contextmanager
def clock() -> Iterator[Callable[[], Seconds]]:
    """Yields a function that returns the time elapsed, including ended child processes."""

    def now() -> Seconds:
        times = os.times()
        return time.perf_counter(), sum(times[:4])

    start = now()
    yield lambda: (now()[0] - start[0], now()[1] - start[1])


def photographs(folder: Path, count: int) -> list[Path]:
    """Writes `count` different JPEGs of 500 x 375, crops of real photographs."""
    from matplotlib import cbook
    from sklearn.datasets import load_sample_images

    with Image.open(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        originals = [image.convert("RGB")]
    originals += [Image.fromarray(image) for image in load_sample_images().images]
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        original = originals[number % len(originals)]
        width = int(rng.integers(320, 500))
        height = width * 3 // 4
        left = int(rng.integers(0, original.width - width + 1))
        top = int(rng.integers(0, original.height - height + 1))
        part = original.crop((left, top, left + width, top + height))
        paths.append(folder / f"{number}.jpg")
        part.resize((500, 375), Image.Resampling.LANCZOS).save(paths[-1], quality=92)
    return paths


def prepare_set(paths: list[Path], kind: str, output: Path) -> float:
    """Prepares a dataset with one process; returns images per second of CPU time."""
    rows = [Row("", str(path), str(number % CLASSES)) for number, path in enumerate(paths)]
    inputs = from_rows({"train": rows}, None, Path("/"), (SIZE, SIZE, 3))
    options = PrepareOptions(ImageFormat(SIZE, 3, "crop", kind, 95), output, 4096, 1, 0.0)
    with clock() as seconds:
        prepare(inputs, options)
    return len(paths) / seconds()[1]


def preparing_costs(paths: list[Path]) -> dict[str, int]:
    """Returns the microseconds of CPU time that each part of preparing an image takes."""
    files = [path.read_bytes() for path in paths]
    decoded = [decode(data, 3) for data in files]
    squares = [resize_and_crop(image, SIZE) for image in decoded]
    stored = [encode_jpeg(square, 95) for square in squares]
    sums = RunningStatistics.zero((SIZE, SIZE, 3), np.uint32)
    parts: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
        "decode": (lambda data: decode(data, 3), files),
        "resize": (lambda image: resize_and_crop(image, SIZE), decoded),
        "encode": (lambda square: encode_jpeg(square, 95), squares),
        "decode_again": (lambda data: decode_jpeg(data, 3), stored),
        "sums": (sums.add, squares),
        "checksum": (lambda data: hashlib.blake2b(data, digest_size=8).digest(), files),
    }
    costs = {}
    for name, (work, inputs) in parts.items():
        with clock() as seconds:
            for given in inputs:
                work(given)
            costs[name] = round(1e6 * seconds()[1] / len(inputs))
    return costs


def open_set(root: Path) -> Source:
    """Opens a prepared dataset."""
    options = DataOptions(
        source="prepared",
        root=str(root),
        name="",
        train_split="train",
        eval_split="val",
        holdout=0.1,
        image_size=SIZE,
        resize="crop",
        channels=3,
        allow_empty_classes=False,
    )
    return open_source(options, "train")


def read_batches(source: Source, threads: int, *, augmented: bool) -> Seconds:
    """Returns the time of as many images as the source has, once the readers are busy."""
    rng = np.random.default_rng(0)
    long = Subset(source, np.arange(IMAGENET) % len(source), source.split)
    with read_ahead(TrainingBatches(long, 0, BATCH), ReadOptions(threads)) as batches:
        for _ in itertools.islice(batches, AHEAD):
            pass
        with clock() as seconds:
            for batch, _ in itertools.islice(batches, EPOCHS * (len(source) // BATCH)):
                if augmented:
                    crop_and_flip(rng, batch.images)
            elapsed, cpu = seconds()
    return elapsed / EPOCHS, cpu / EPOCHS


def crop_and_flip(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Returns a random crop of each image, half of them flipped."""
    out = np.empty((len(images), CROP, CROP, 3), np.uint8)
    for row, image in enumerate(images):
        top, left = rng.integers(0, SIZE - CROP + 1, 2)
        crop = image[top : top + CROP, left : left + CROP]
        if rng.random() < 0.5:
            for color in range(3):  # three times as fast as all at once
                out[row, ..., color] = crop[:, ::-1, color]
        else:
            out[row] = crop
    return out


def decode_all(files: list[bytes]) -> Seconds:
    """Returns the time of the bare decoder for as many images as an epoch has."""
    with clock() as seconds:
        for data in files[: len(files) // BATCH * BATCH]:
            simplejpeg.decode_jpeg(data, "RGB")
        return seconds()


class TorchSet:
    """The same files as a PyTorch dataset: Pillow, random crop, flip, uint8."""

    def __init__(self, files: list[bytes]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch

        with Image.open(io.BytesIO(self.files[index])) as image:
            top, left = torch.randint(0, SIZE - CROP + 1, (2,)).tolist()
            crop = image.convert("RGB").crop((left, top, left + CROP, top + CROP))
        if torch.rand(()) < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(crop)), index % CLASSES


def read_with_torch(files: list[bytes], workers: int) -> Seconds:
    """Returns the time of one epoch of PyTorch's DataLoader."""
    import torch

    loader: Any = torch.utils.data.DataLoader(
        cast(Any, TorchSet(files)), BATCH, shuffle=True, num_workers=workers, drop_last=True
    )
    with clock() as seconds:
        for _ in loader:
            pass
        return seconds()


def measure(jpeg: Source, raw: Source, rounds: int) -> dict[str, Any]:
    """Reads both datasets with all methods, interleaved; returns the medians."""
    files = [bytes(example.data) for example in jpeg.read(np.arange(len(jpeg)))]
    num_images = len(files) // BATCH * BATCH
    methods: dict[str, Callable[[], Seconds]] = {
        "decoder": lambda: decode_all(files),
        "jpeg": lambda: read_batches(jpeg, 1, augmented=False),
        "raw": lambda: read_batches(raw, 1, augmented=False),
        "augmented": lambda: read_batches(jpeg, os.cpu_count() or 1, augmented=True),
    }
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401

        for workers in WORKERS:
            methods[f"torch_{workers}"] = functools.partial(read_with_torch, files, workers)
    for method in methods.values():  # files into the page cache, modules into memory
        method()
    times: dict[str, list[Seconds]] = {name: [] for name in methods}
    for number, (name, method) in itertools.product(range(rounds), methods.items()):
        times[name].append(method())
        elapsed, cpu = times[name][-1]
        print(
            f"round {number + 1}, {name}: {num_images / elapsed:,.0f} images/s, "
            f"{num_images / cpu:,.0f} per second of CPU time"
        )
    return _results(times, num_images)


def _results(times: dict[str, list[Seconds]], num_images: int) -> dict[str, float | None]:
    """Returns the medians; of ratios, the median over the rounds."""
    seconds = {name: np.array(rows).T for name, rows in times.items()}  # elapsed, and of CPU time
    torch_seconds = [seconds[name] for name in seconds if name.startswith("torch")]
    best = np.min(torch_seconds, axis=0) if torch_seconds else None

    def per_core(name: str) -> float:
        return round(num_images / float(np.median(seconds[name][1])), 1)

    def ratio(name: str, other: np.ndarray | None, clock_index: int) -> float | None:
        if other is None:
            return None
        return round(float(np.median(other[clock_index] / seconds[name][clock_index])), 3)

    return {
        "jpeg_images_per_second_per_core": per_core("jpeg"),
        "decoder_images_per_second_per_core": per_core("decoder"),
        "jpeg_ratio_to_decoder": ratio("jpeg", seconds["decoder"], 1),
        "jpeg_ratio_to_torch": ratio("augmented", best, 0),
        "jpeg_cpu_ratio_to_torch": ratio("augmented", best, 1),
        "raw_images_per_second_per_core": per_core("raw"),
    }


def loop_ratio(root: Path, steps: int) -> float:
    """Returns the speed of training the paper's model over that of its bare step."""
    case = Case(
        (
            "--config=configs/paper.py",
            "--config.data.source=prepared",
            f"--config.data.root={root}",
            "--config.data.eval_split=train[:1]",
            "--config.augment.mean=channel",
            "--config.train.batch_size=32",
        ),
        steps=steps,
        rounds=1,
    )
    ratios = []
    for _ in range(3):
        bare, loop = bare_rate(case), loop_rate(case)
        print(f"paper: bare {bare:.1f}, loop {loop:.1f} images/s")
        ratios.append(loop / bare)
    return round(float(np.median(ratios)), 3)


def main() -> None:
    """Prepares, reads and trains; prints one line of JSON at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--root", type=Path, help="folder of JPEGs")
    parser.add_argument("--images", type=int, default=1024, help="number of images")
    parser.add_argument("--rounds", type=int, default=5, help="of all methods")
    parser.add_argument(
        "--steps", type=int, default=4, help="of training in each measurement; 0: none"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        if options.root:
            paths = sorted(options.root.rglob("*.jpg"))[: options.images]
        else:
            paths = photographs(top, options.images)
        prepared = {kind: prepare_set(paths, kind, top / kind) for kind in ("jpeg", "raw")}
        print(f"prepared, per second of CPU time: {prepared}")
        result = measure(open_set(top / "jpeg"), open_set(top / "raw"), options.rounds)
        result["prepare_microseconds"] = preparing_costs(paths[:MAX_COSTED])
        result["prepare_images_per_second_per_core"] = round(prepared["jpeg"], 1)
        result["loop_ratio"] = None
        if options.steps:
            devices.set_up(cpu_devices=None, use_cache=True)
            result["loop_ratio"] = loop_ratio(top / "jpeg", options.steps)
    print(json.dumps(result))


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()  # as the program does
    main()
