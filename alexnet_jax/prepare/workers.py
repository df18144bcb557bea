"""The processes that write shards."""

import itertools
import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from alexnet_jax.errors import InputError
from alexnet_jax.prepare.shards import ShardJob, write_shard
from alexnet_jax.runtime.worker_process import follow_parent

_SECONDS_BETWEEN_LOOKS = 0.5

_counter: Any = None  # of a worker: pictures done by all of them


def write_shards(
    tasks: Sequence[ShardJob], processes: int, progress: Callable[[int, int], None]
) -> Generator[int, None, None]:
    """Writes shards, several at a time, and yields the number of unreadable pictures of each.

    Where the caller stops early, shards that were begun are still finished.

    Raises:
      InputError: a shard cannot be written, or a process died.
    """
    total = sum(len(task.pictures) for task in tasks)
    if min(processes, len(tasks)) <= 1:
        done = itertools.count(1)
        for task in tasks:
            yield write_shard(task, lambda: progress(next(done), total))
        return
    # Spawned, since JAX's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    processes = min(processes, len(tasks))
    with ProcessPoolExecutor(processes, context, _start_worker, (counter,)) as pool:
        waiting = {pool.submit(_work, task) for task in tasks}
        try:
            while waiting:
                done_now, waiting = wait(waiting, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
                progress(counter.value, total)
                for future in done_now:
                    yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "A process that prepared pictures was killed, perhaps for want of memory: set "
                "fewer --config.prepare.processes. Shards that are done are kept."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    follow_parent()


def _work(task: ShardJob) -> int:
    return write_shard(task, _tick)


def _tick() -> None:
    with _counter.get_lock():
        _counter.value += 1
