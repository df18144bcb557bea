"""Several processes: how they find each other, agree to stop, and notice that one is gone."""

import atexit
import contextlib
import ctypes
import dataclasses
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

from alexnet_jax.errors import EXIT_INPUT, EXIT_LOST_PEER, InputError, RunError

BEAT_SECONDS = 3.0
LOST_AFTER_SECONDS = 30.0
_CONNECT_SECONDS = 120
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
class Peers:
    """What a process knows of its peers before it meets them; `address` None: JAX finds it out."""

    count: int = 1
    index: int | None = None
    address: str | None = None


def find_peers(environment: Mapping[str, str], parallel: ConfigDict) -> Peers:
    """Returns what the config says of the peers, or else the launcher.

    Args:
      environment: os.environ.
      parallel: that part of the config; reads coordinator, processes and process.

    Raises:
      InputError: only a part is told, or a number is none.
    """
    names = ("processes", "process", "coordinator")
    missing = [f"parallel.{name}" for name in names if parallel[name] is None]
    if len(missing) < len(names):
        if missing:
            raise InputError(f"To run in several processes set {' and '.join(missing)} too.")
        return _checked(Peers(*(parallel[name] for name in names)), "parallel.process")
    for row in ENVIRONMENTS:
        if row.count in environment and row.index in environment:
            return _checked(_peers_of(row, environment), row.index)
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return Peers(len(hosts))


def _peers_of(row: Environment, environment: Mapping[str, str]) -> Peers:
    try:
        count, index = int(environment[row.count]), int(environment[row.index])
    except ValueError as error:
        raise InputError(f"{row.count} and {row.index} of {row.name}: {error}.") from error
    if row.address and count > 1 and not environment.get(row.address):
        raise InputError(
            f"{row.count} is {count}: {row.address}=HOST:PORT of process 0 is missing."
        )
    return Peers(count, index, environment.get(row.address))


def _checked(peers: Peers, name: str) -> Peers:
    if peers.index is not None and not 0 <= peers.index < peers.count:
        raise InputError(f"{name}: {peers.index} is not one of {peers.count} processes, from 0 on.")
    return peers


def connect(peers: Peers) -> int:
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
    os._exit(EXIT_LOST_PEER)


@contextlib.contextmanager
def watch_peers(on_lost: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Ends this process with exit code 76 when a peer is gone, instead of waiting for it.

    A lost peer may show itself first as a failed collective: an exception is then held back until
    the watch has had its time.

    Args:
      on_lost: called with one sentence before the end.
    """
    if jax.process_count() == 1:
        yield
        return
    watch = PeerWatch(on_lost)
    try:
        yield
    except Exception as error:
        if not isinstance(error, RunError):
            time.sleep(LOST_AFTER_SECONDS + 2 * BEAT_SECONDS)
        # bad input may be this process's alone: the others must not wait for it
        watch.close(of_one_mind=isinstance(error, RunError) and not isinstance(error, InputError))
        raise
    watch.close(of_one_mind=True)


@contextlib.contextmanager
def own_exit_code() -> Iterator[None]:
    """Keeps the exit code of an error where the peers do not come to the same end.

    At its exit a process waits for its peers. JAX aborts it, with a stack trace, when one fails.
    """
    try:
        yield
    except RunError as error:
        code = error.exit_code
        if jax.distributed.is_initialized():
            _catch_abort(lambda: os._exit(code))
            atexit.register(_silence)  # runs after all is told, and before JAX's own
        raise


def _silence() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class PeerWatch:
    """A thread that ends this process when a peer is gone, instead of waiting for it for ever.

    Each process counts up under its own name at the coordinator. One that stands still for
    LOST_AFTER_SECONDS is gone, and so is a coordinator that does not answer.
    """

    def __init__(self, on_lost: Callable[[str], None]):
        """Starts watching.

        Args:
          on_lost: called with one sentence, in the thread, before the process ends with exit code
            76.
        """
        self._on_lost = on_lost
        self._client = _runtime().client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peer-watch", daemon=True)
        self._thread.start()

    def close(self, *, of_one_mind: bool) -> None:
        """Stops watching.

        Args:
          of_one_mind: whether the peers stop too, and are told not to miss this process.
        """
        self._stop.set()
        self._thread.join()
        if of_one_mind:
            self._client.key_value_set(_key(jax.process_index()), "left", allow_overwrite=True)

    def _watch(self) -> None:
        here, beat = jax.process_index(), 0
        others = [index for index in range(jax.process_count()) if index != here]
        seen = dict.fromkeys(others, ("", time.monotonic()))
        while not self._stop.wait(BEAT_SECONDS):
            beat += 1
            try:
                self._client.key_value_set(_key(here), str(beat), allow_overwrite=True)
                now = {index: self._client.key_value_try_get(_key(index)) for index in others}
            except Exception as error:  # jaxlib has no class of its own for a lost coordinator
                if "NOT_FOUND" not in str(error):
                    _end(_COORDINATOR_GONE, self._on_lost)
                continue
            for index, value in now.items():
                before, since = seen[index]
                if value != before or value == "left":
                    seen[index] = (value, time.monotonic())
                elif time.monotonic() - since > LOST_AFTER_SECONDS:
                    _end(f"Process {index} is gone.", self._on_lost)


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
