"""Several processes: how they find each other, agree to stop, and notice that one is gone."""

import atexit
import contextlib
import ctypes
import dataclasses
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from alexnet_jax.errors import EXIT_INPUT, EXIT_LOST_PROCESS, InputError, RunError

BEAT_SECONDS = 3.0
LOST_AFTER_SECONDS = 30.0
_CONNECT_SECONDS = 120
_LEFT = -1  # the count of a process that left with the others
_LEAVE_SECONDS = 3600  # process 0 may still draw and write when the others are done
_COORDINATOR_GONE = "Process 0, where all meet, is gone."
_kept: list[Any] = []  # what C code holds a pointer to


@dataclasses.dataclass(frozen=True)
class Environment:
    """How a launcher tells a process of its peers.

    Attributes:
      name: of the launcher.
      count: variable with the number of processes.
      index: variable with the number of this one.
      address: variable with host:port of process 0; "": JAX finds it out.
    """

    name: str
    count: str
    index: str
    address: str = ""


ENVIRONMENTS = (
    Environment(
        "launch/local.sh", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"
    ),
    Environment(
        "Kubernetes", "JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX", "JAX_COORDINATOR_ADDRESS"
    ),
    Environment("Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    Environment("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)


@dataclasses.dataclass(frozen=True)
class Processes:
    """What a process knows of its peers before it meets them; `address` None: JAX finds it out."""

    count: int = 1
    index: int | None = None
    address: str | None = None


def find_processes(environment: Mapping[str, str], parallel: ConfigDict) -> Processes:
    """Returns what the config says of the peers, or else the launcher.

    Args:
      environment: os.environ.
      parallel: that part of the config; reads coordinator, processes and process_index.

    Raises:
      InputError: only a part is told, or a number is none.
    """
    names = ("processes", "process_index", "coordinator")
    missing = [f"parallel.{name}" for name in names if parallel[name] is None]
    if len(missing) < len(names):
        if missing:
            raise InputError(f"To run in several processes set {' and '.join(missing)} too.")
        return _checked(Processes(*(parallel[name] for name in names)), "parallel.process_index")
    for row in ENVIRONMENTS:
        if row.count in environment and row.index in environment:
            return _checked(_peers_of(row, environment), row.index)
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return Processes(len(hosts))


def _peers_of(row: Environment, environment: Mapping[str, str]) -> Processes:
    try:
        count, index = int(environment[row.count]), int(environment[row.index])
    except ValueError as error:
        raise InputError(f"{row.count} and {row.index} of {row.name}: {error}.") from error
    if row.address and count > 1 and not environment.get(row.address):
        raise InputError(
            f"{row.count} is {count}: {row.address}=HOST:PORT of process 0 is missing."
        )
    return Processes(count, index, environment.get(row.address))


def _checked(peers: Processes, name: str) -> Processes:
    if peers.index is not None and not 0 <= peers.index < peers.count:
        raise InputError(f"{name}: {peers.index} is not one of {peers.count} processes, from 0 on.")
    return peers


def connect(peers: Processes) -> int:
    """Meets the peers, if there are any, and returns the index of this process.

    From then on a process whose coordinator, process 0, is gone ends with exit code 76. One that
    does not meet its peers in time ends with exit code 2.

    Raises:
      InputError: JAX does not find out who they are.
    """
    if peers.count == 1:
        return 0
    known = {}
    if peers.address:
        known = {
            "coordinator_address": peers.address,
            "num_processes": peers.count,
            "process_id": peers.index,
        }
    with _standard_error_kept() as standard_error:

        def did_not_meet() -> None:
            message = (
                f"error: The {peers.count} processes did not meet at "
                f"{peers.address or 'the address their launcher gave'} within "
                f"{_CONNECT_SECONDS} s: is each of them started, and is that process 0?\n"
            )
            os.write(standard_error, message.encode())
            os._exit(EXIT_INPUT)

        _catch_abort(did_not_meet)
        try:
            jax.distributed.initialize(
                **known,  # type: ignore[arg-type]
                initialization_timeout=_CONNECT_SECONDS,
                heartbeat_timeout_seconds=2 * int(LOST_AFTER_SECONDS),
                shutdown_timeout_seconds=_LEAVE_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"The {peers.count} processes cannot meet: {reason}") from error
    _catch_abort(_end_without_coordinator)
    return jax.process_index() if peers.index is None else peers.index


@contextlib.contextmanager
def _standard_error_kept() -> Iterator[int]:
    """Silences C code, which tells a user's mistake with a stack trace; gives the real stream."""
    real = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield real
    finally:
        os.dup2(real, 2)
        os.close(real)
        os.close(nowhere)


def _end_without_coordinator() -> None:
    """Ends this process with exit code 76 if nobody answers where process 0 was."""
    host, port = _runtime().coordinator_address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        _end(_COORDINATOR_GONE)


def _end(message: str, on_lost: Callable[[str], None] = lambda message: None) -> None:
    message = f"{message} The same command goes on from the last checkpoint."
    print(message, file=sys.stderr, flush=True)
    on_lost(message)
    os._exit(EXIT_LOST_PROCESS)


@contextlib.contextmanager
def heartbeats() -> Iterator[None]:
    """Shows the peers that this process is alive; keeps its exit code where they end otherwise.

    Each process counts up under its own name at the coordinator: see `monitor_processes`. At its
    exit it waits for the others, who may still write; JAX aborts it, with a stack trace, when one
    is gone.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    _beat(0)
    numbers = itertools.count(1)
    try:
        with _each_beat(lambda: _beat(next(numbers))):
            yield
    except RunError as error:
        code = error.exit_code
        _catch_abort(lambda: os._exit(code))
        atexit.register(_silence)  # runs after all is told, and before JAX's own
        if not isinstance(error, InputError):  # which may be this process's alone
            _beat(_LEFT)
        raise
    _beat(_LEFT)


@contextlib.contextmanager
def monitor_processes(on_lost: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Ends this process with exit code 76 when a peer is gone, instead of waiting for it.

    A peer whose count stands still for LOST_AFTER_SECONDS is gone. It may show itself first as a
    failed collective: an exception is then held back until the watch has had its time.

    Args:
      on_lost: called with one sentence before the end.
    """
    if jax.process_count() == 1:
        yield
        return
    others = [index for index in range(jax.process_count()) if index != jax.process_index()]
    seen = dict.fromkeys(others, ("", time.monotonic()))

    def look() -> None:
        for index, (before, since) in seen.items():
            now = _count_of(index)
            if now != before or now == str(_LEFT):
                seen[index] = (now, time.monotonic())
            elif time.monotonic() - since > LOST_AFTER_SECONDS:
                _end(f"Process {index} is gone.", on_lost)

    with _each_beat(look):
        try:
            yield
        except Exception as error:
            if not isinstance(error, RunError):
                time.sleep(LOST_AFTER_SECONDS + 2 * BEAT_SECONDS)
            raise


@contextlib.contextmanager
def _each_beat(act: Callable[[], None]) -> Iterator[None]:
    """Calls a function every BEAT_SECONDS, in a thread."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(BEAT_SECONDS):
            act()

    thread = threading.Thread(target=run, name=f"peers-{act.__name__}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(number: int) -> None:
    runtime = _runtime()
    try:
        runtime.client.key_value_set(_key(runtime.process_id), str(number), allow_overwrite=True)
    except Exception:  # jaxlib has no class of its own for a lost coordinator
        _end(_COORDINATOR_GONE)


def _count_of(index: int) -> str:
    """Returns the last count of a peer, "" before the first."""
    try:
        return str(_runtime().client.key_value_try_get(_key(index)))
    except Exception:  # not found; or the coordinator is gone, which the next beat finds
        return ""


def _silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _key(index: int) -> str:
    return f"alexnet_jax/beat/{index}"


def _runtime() -> Any:
    """Returns what JAX knows of the processes, for which it has no public name."""
    from jax._src import distributed

    return distributed.global_state


def _catch_abort(handler: Callable[[], None]) -> None:
    """Has a function called when this process is about to abort.

    JAX's runtime aborts the moment the coordinator does not answer, in a thread of its own, and
    offers no way around it that works (`missed_heartbeat_callback` ends in std::bad_cast). Python's
    signal handlers run too late, so this one is the C library's. If the function returns, the
    process aborts.
    """
    caught = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: handler())
    _kept.append(caught)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(caught, ctypes.c_void_p))
