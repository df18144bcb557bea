"""Job profile_input: the images/s that each stage from disk to step allows, and what to change."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.pipeline import Batch, TrainingBatches, read_ahead, training_indices
from alexnet_jax.data.source import RawExample, Source, open_source
from alexnet_jax.experiment import Experiment, data_options, read_options
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.runtime.files import write_atomically
from alexnet_jax.runtime.workdir import Workdir

SECONDS_A_STAGE = 3.0
ENOUGH = 1.05  # a pipeline this much faster than the step keeps it busy
CHUNK = 64  # examples that a thread loads or decodes at a time

STAGES = {
    "disk": "reading the stored pictures at random, {threads} threads",
    "decoder": "decoding and resizing them, {threads} threads",
    "pipeline": "whole batches on the host, as training reads them",
    "copy": "from the host to the devices",
    "step": "the train step on a batch that lies there",
}


class Measured(NamedTuple):
    """What was measured.

    Attributes:
      rates: images per second that each of STAGES allows by itself.
      bytes_per_image: of a stored picture.
    """

    rates: dict[str, float]
    bytes_per_image: float


def run(command: Command, console: Console) -> None:
    """Measures every stage; prints a table and writes profile_input.json to the workdir.

    Raises:
      InputError: the data are not as they must be.
    """
    config = command.config
    train = open_source(data_options(config), config.data.train_split)
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    with console.status("Measuring disk, decoder, pipeline, copy and step ..."):
        measured = measure(config, train, experiment)
    narrowest = min(measured.rates, key=lambda stage: measured.rates[stage])
    mend = advice(config.data, measured.rates, os.cpu_count() or 1)
    console.print(_table(config, measured, narrowest))
    console.print(f"Narrowest: {narrowest}. {mend}")
    result = {
        "images_per_second": {name: round(rate, 1) for name, rate in measured.rates.items()},
        "bytes_per_image": round(measured.bytes_per_image),
        "narrowest": narrowest,
        "advice": mend,
        "data": config.data.to_dict(),
        "batch_size": config.train.batch_size,
    }
    workdir = Workdir(command.workdir)
    workdir.path.mkdir(parents=True, exist_ok=True)
    write_atomically(workdir.path / "profile_input.json", json.dumps(result, indent=2) + "\n")


def measure(config: ConfigDict, source: Source, experiment: Experiment) -> Measured:
    """Measures each stage by itself, one after the other."""
    size, threads = config.train.batch_size, config.data.threads
    chunks = _chunks(source, config.seed)
    disk, loaded = _measure_disk(source, chunks, threads)
    decoder = _rate_of_threads(lambda: len(source.decode(loaded).labels), threads)
    with read_ahead(TrainingBatches(source, config.seed, size), read_options(config)) as batches:
        batch = next(batches).batch  # the first waits for the readers to start
        for _ in range(config.data.prefetch + threads):  # read ahead of the clock
            next(batches)
        pipeline = _rate(lambda: len(next(batches).batch.labels))
    copy = _rate(lambda: len(jax.block_until_ready(put_batch(batch, experiment.mesh)).labels))
    rates = {"disk": disk, "decoder": decoder, "pipeline": pipeline, "copy": copy}
    sizes = [memoryview(example.data).nbytes for example in loaded]
    return Measured({**rates, "step": _measure_step(experiment, batch)}, float(np.mean(sizes)))


def _chunks(source: Source, seed: int) -> Iterator[np.ndarray]:
    """Yields indices of training batches that come late in the run: hardly in the page cache."""
    for number in itertools.count():
        positions = np.arange(number * CHUNK, (number + 1) * CHUNK) + len(source)
        yield training_indices(seed, positions, len(source))


def _measure_disk(
    source: Source, chunks: Iterator[np.ndarray], threads: int
) -> tuple[float, list[RawExample]]:
    """Returns images per second, and the last chunk that was read."""
    lock = threading.Lock()
    last: list[RawExample] = []

    def load() -> int:
        with lock:
            indices = next(chunks)
        loaded = source.read(indices)
        last[:] = [RawExample(_in_memory(example.data), example.label) for example in loaded]
        return len(loaded)

    return _rate_of_threads(load, threads), list(last)


def _in_memory(data: Any) -> Any:
    """Returns stored data, read from the disk where they were only mapped."""
    return np.array(data) if isinstance(data, np.ndarray) else data


def _measure_step(experiment: Experiment, batch: Batch) -> float:
    """Returns images per second of the compiled step, every one on the same batch."""
    statistics = jax.tree.map(
        lambda shape: np.zeros(shape.shape, shape.dtype), experiment.abstract_state().statistics
    )
    state = experiment.initial_state(statistics)
    step = one_at_a_time(experiment.compile_train_step(state))
    resident = put_batch(batch, experiment.mesh)
    # Donated: each state is the next one's memory.
    states = itertools.accumulate(
        itertools.repeat(resident), lambda state, batch: step(state, batch)[0], initial=state
    )
    next(states)

    def one() -> int:
        jax.block_until_ready(next(states))
        return experiment.batch_size

    one()
    return _rate(one)


def _rate(work: Callable[[], int]) -> float:
    """Returns how many images a second `work`, which returns its number of them, gets done."""
    done, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS_A_STAGE or not done:
        done += work()
    return done / seconds


def _rate_of_threads(work: Callable[[], int], threads: int) -> float:
    """Returns the rate of several threads together."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(lambda _: _rate(work), range(threads)))


def advice(data: ConfigDict, rates: Mapping[str, float], cores: int) -> str:
    """Says what to change about the narrowest stage, one or two sentences.

    Args:
      data: the `data` part of the config.
      rates: images per second by stage.
      cores: of this machine.
    """
    if rates["step"] * ENOUGH <= min(rates["pipeline"], rates["copy"]):
        return "Nothing to change: the step is the limit, and its input waits for it."
    if rates["copy"] < rates["pipeline"]:
        return (
            "The copy to the devices is the limit: set --config.data.image_size nearer to the "
            "net's input, for fewer bytes a picture."
        )
    if data.source in ("folder", "tfds") and rates["decoder"] < 2 * rates["step"]:
        return (
            "Prepare the set once (--config.job=prepare): pictures of the size that the net takes "
            "are read and decoded several times faster."
        )
    if rates["disk"] < ENOUGH * rates["pipeline"]:
        return (
            "The disk is the limit: copy the set to a local or faster one, or give the machine "
            "memory to hold it; more --config.data.threads help where the disk lies far away."
        )
    if data.threads * max(data.processes, 1) < cores:
        return f"Set --config.data.threads={cores}: as many as there are cores."
    if rates["pipeline"] < 0.7 * rates["decoder"] and not data.processes:
        return (
            "The decoder alone is faster than the pipeline around it: try reading in processes, "
            f"--config.data.processes={cores} --config.data.threads=1."
        )
    return (
        "Every core decodes: prepare the set as raw pictures (--config.prepare.format=raw), which "
        "need no decoding but ten times the space, or take a machine of more cores."
    )


def _table(config: ConfigDict, measured: Measured, narrowest: str) -> Table:
    table = Table(
        title=f"{config.data.source}: what each stage allows, batches of {config.train.batch_size}",
        title_justify="left",
    )
    for heading, justify in (("stage", "left"), ("images/s", "right"), ("MB/s", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    table.add_column("what")
    stored = measured.bytes_per_image
    handed_over = config.data.image_size**2 * config.data.channels
    sizes = {"disk": stored, "decoder": stored, "pipeline": handed_over, "copy": handed_over}
    for stage, rate in measured.rates.items():
        megabytes = f"{rate * sizes[stage] / 1e6:,.0f}" if stage in sizes else ""
        mark = " <" if stage == narrowest else ""
        what = STAGES[stage].format(threads=config.data.threads)
        table.add_row(stage + mark, f"{rate:,.0f}", megabytes, what)
    return table
