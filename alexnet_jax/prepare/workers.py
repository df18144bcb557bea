"""The processes that write shards."""

import itertools
import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alexnet_jax.errors import InputError
from alexnet_jax.prepare.shards import ShardJob
from alexnet_jax.runtime.worker_process import follow_parent

_POLL_SECONDS = 0.5

Tick = Callable[[], None]
WriteShard = Callable[[ShardJob, Tick], int]

# Of a worker: what writes a shard, and the number of images that all workers have done.
_write: WriteShard
_counter: Any


def write_shards(
    write: WriteShard,
    jobs: Sequence[ShardJob],
    processes: int,
    progress: Callable[[int, int], None],
) -> Generator[int, None, None]:
    """Writes shards, several at a time, and yields the number of unreadable images of each.

    If the caller stops early, shards that were begun are still finished.

    Args:
      write: writes one shard and returns its number of unreadable images; pickled once per process.
      jobs: the shards.
      processes: how many work at the same time.
      progress: called with images done and in all.

    Raises:
      InputError: a shard cannot be written, or a process died.
    """
    total = sum(len(job.indices) for job in jobs)
    processes = min(processes, len(jobs))
    if processes <= 1:
        done = itertools.count(1)
        yield from (write(job, lambda: progress(next(done), total)) for job in jobs)
        return
    # Spawned, since JAX's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    with ProcessPoolExecutor(processes, context, _start_worker, (write, counter)) as pool:
        waiting = {pool.submit(_work, job) for job in jobs}
        try:
            while waiting:
                finished, waiting = wait(waiting, _POLL_SECONDS, FIRST_COMPLETED)
                progress(counter.value, total)
                yield from (future.result() for future in finished)
        except BrokenProcessPool as error:
            raise InputError(
                "A process that prepared images was killed, perhaps because the machine ran out "
                "of memory: set fewer --config.prepare.processes. Complete shards are kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(write: WriteShard, counter: Any) -> None:
    global _write, _counter
    _write, _counter = write, counter
    follow_parent()


def _work(job: ShardJob) -> int:
    return _write(job, _tick)


def _tick() -> None:
    with _counter.get_lock():
        _counter.value += 1
