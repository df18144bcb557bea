"""Job profile_input: the images/s that each stage from disk to step allows, and what to change."""

import itertools
import json
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.pipeline import Batch, TrainingBatches, read_ahead, training_indices
from alexnet_jax.data.source import RawExample, Source, open_source
from alexnet_jax.experiment import Experiment, data_options, read_options
from alexnet_jax.parallel.mesh import put_batch
from alexnet_jax.runtime.files import write_atomically

SECONDS_PER_STAGE = 3.0
CHUNK = 64  # examples that a thread reads or decodes at a time

STAGES = {
    "disk": "reading the stored images at random, {threads} threads",
    "decoder": "decoding and resizing them, {threads} threads",
    "pipeline": "whole batches on the host, as training reads them",
    "copy": "from the host to the devices",
    "step": "the train step on one batch that stays on the devices",
}


def run(command: Command, console: Console) -> None:
    """Measures every stage; prints a table and writes profile_input.json to the workdir.

    Raises:
      InputError: the dataset is missing or malformed.
    """
    config = command.config
    train = open_source(data_options(config), config.data.train_split)
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    with console.status("Measuring disk, decoder, pipeline, copy and step ..."):
        rates, bytes_per_image = measure(config, train, experiment)
    slowest = min(rates, key=rates.__getitem__)
    result = {
        "images_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "bytes_per_image": round(bytes_per_image),
        "slowest": slowest,
        "advice": advice(config.data, rates, os.cpu_count() or 1),
        "data": config.data.to_dict(),
        "batch_size": config.train.batch_size,
    }
    console.print(_table(config, rates, bytes_per_image))
    console.print(f"Slowest: {slowest}. {result['advice']}")
    command.workdir.mkdir(parents=True, exist_ok=True)
    write_atomically(command.workdir / "profile_input.json", json.dumps(result, indent=2) + "\n")


def measure(
    config: ConfigDict, source: Source, experiment: Experiment
) -> tuple[dict[str, float], float]:
    """Measures each stage by itself, one after the other.

    Returns:
      The images per second that each of STAGES allows, and the mean bytes of a stored image.
    """
    threads = config.data.threads
    disk, raw = _measure_disk(source, config.seed, threads)
    decoder = _rate_of_threads(lambda: len(source.decode(raw).labels), threads)
    steps = TrainingBatches(source, config.seed, config.train.batch_size)
    with read_ahead(steps, read_options(config)) as batches:
        # The first wait for the readers to start, or were read before the clock starts.
        batch = next(itertools.islice(batches, config.data.prefetch + threads, None)).batch
        pipeline = _rate(lambda: len(next(batches).batch.labels))
    copy = _rate(lambda: len(jax.block_until_ready(put_batch(batch, experiment.mesh)).labels))
    rates = (disk, decoder, pipeline, copy, _measure_step(experiment, batch))
    sizes = [memoryview(example.data).nbytes for example in raw]
    return dict(zip(STAGES, rates, strict=True)), float(np.mean(sizes))


def _measure_disk(source: Source, seed: int, threads: int) -> tuple[float, list[RawExample]]:
    """Returns images per second, and some of the examples read.

    The examples are those of the second epoch on: hardly in the page cache.
    """
    chunks = itertools.count(len(source), CHUNK)

    def read() -> list[RawExample]:
        stream_position = next(chunks) + np.arange(CHUNK)
        # An array may only be mapped so far: copying reads it from the disk.
        return [
            RawExample(np.array(data) if isinstance(data, np.ndarray) else data, label)
            for data, label in source.read(training_indices(seed, stream_position, len(source)))
        ]

    return _rate_of_threads(lambda: len(read()), threads), read()


def _measure_step(experiment: Experiment, batch: Batch) -> float:
    """Returns images per second of the compiled step, always on the same batch."""
    shapes = experiment.statistics.items()
    state = experiment.initial_state({name: np.zeros(shape, np.float32) for name, shape in shapes})
    step = experiment.compile_train_step(state)
    resident = put_batch(batch, experiment.mesh)

    def one() -> int:
        nonlocal state
        state, _ = jax.block_until_ready(step(state, resident))
        return experiment.batch_size

    one()
    return _rate(one)


def _rate(work: Callable[[], int]) -> float:
    """Returns the images per second that `work` does, which returns their number at each call."""
    done, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS_PER_STAGE or not done:
        done += work()
    return done / seconds


def _rate_of_threads(work: Callable[[], int], threads: int) -> float:
    """Returns the rate of several threads together."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda _: _rate(work), range(threads)))


def advice(data: ConfigDict, rates: Mapping[str, float], cores: int) -> str:
    """Returns what to change about the slowest stage, one or two sentences.

    Args:
      data: the section `data` of the config.
      rates: images per second by stage.
      cores: of this machine.
    """
    disk, decoder, pipeline, copy, step = (rates[stage] for stage in STAGES)
    choices = (
        (
            min(pipeline, copy) >= 1.05 * step,
            "Nothing to change: the step is the limit, and its input waits for it.",
        ),
        (
            copy < pipeline,
            "The copy to the devices is the limit: set --config.data.image_size closer to the "
            "model's input, for fewer bytes per image.",
        ),
        (
            data.source not in ("prepared", "digits") and decoder < 2 * step,
            "Prepare the dataset once (--config.job=prepare): images of the size that the model "
            "takes are read and decoded several times faster.",
        ),
        (
            disk < 1.05 * pipeline,
            "The disk is the limit: copy the dataset to a local or faster disk, or give the "
            "machine memory to hold it; more --config.data.threads help where the disk is remote.",
        ),
        (
            data.threads * max(data.processes, 1) < cores,
            f"Set --config.data.threads={cores}: as many as there are cores.",
        ),
        (
            pipeline < 0.7 * decoder and not data.processes,
            "The decoder alone is faster than the pipeline around it: try reading in processes, "
            f"--config.data.processes={cores} --config.data.threads=1.",
        ),
        (
            True,
            "Every core decodes: prepare the dataset as raw images (--config.prepare.format=raw), "
            "which need no decoding, but ten times the space, or use a machine with more cores.",
        ),
    )
    return next(text for holds, text in choices if holds)


def _table(config: ConfigDict, rates: Mapping[str, float], bytes_per_image: float) -> Table:
    data = config.data
    title = f"{data.source}: what each stage allows, batches of {config.train.batch_size}"
    table = Table("stage", "images/s", "MB/s", "what", title=title, title_justify="left")
    table.columns[1].justify = table.columns[2].justify = "right"
    decoded = data.image_size**2 * data.channels
    sizes = (bytes_per_image, bytes_per_image, decoded, decoded, None)
    for (stage, rate), size in zip(rates.items(), sizes, strict=True):
        megabytes = f"{rate * size / 1e6:,.0f}" if size else ""
        table.add_row(stage, f"{rate:,.0f}", megabytes, STAGES[stage].format(threads=data.threads))
    return table
