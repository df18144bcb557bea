"""Several processes: how they find each other, stop together, and notice that one is lost."""

import atexit
import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax._src import distributed

from alexnet_jax.errors import EXIT_INPUT, EXIT_LOST_PROCESS, InputError, RunError

# Shorter where a test waits for a lost process.
HEARTBEAT_SECONDS = float(os.environ.get("ALEXNET_JAX_HEARTBEAT_SECONDS", "3"))
LOST_AFTER_SECONDS = float(os.environ.get("ALEXNET_JAX_LOST_AFTER_SECONDS", "30"))
_CONNECT_SECONDS = 120
_SHUTDOWN_SECONDS = 3600  # process 0 may still plot and write when the others are done
_LEFT = "left"  # in place of the heartbeat of a process that is done
_COORDINATOR_LOST = "Process 0, the coordinator, is lost."
_ADDRESS = re.compile(r"(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", re.ASCII)
_KEY = "alexnet_jax/heartbeat/{}"
_callbacks: list[Any] = []  # keeps alive what C code holds a pointer to
_runtime: Any = distributed.global_state  # JAX's record of the processes has no public name


class Names(NamedTuple):
    """Where the processes are described: keys of the config or variables of a launcher.

    Attributes:
      processes: number of processes.
      process_index: index of this one.
      coordinator: host:port of process 0; "": JAX finds it.
    """

    processes: str
    process_index: str
    coordinator: str = ""


_CONFIG = Names("parallel.processes", "parallel.process_index", "parallel.coordinator")
_LAUNCHERS = (
    Names("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS"),  # launch/local.sh
    Names("JAX_NUM_PROCESSES", "JOB_COMPLETION_INDEX", "JAX_COORDINATOR_ADDRESS"),  # Kubernetes
    Names("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    Names("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
)


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a run, as one of them knows them before it connects.

    Attributes:
      count: number of processes.
      index: that of this process; None: JAX finds it.
      coordinator: host:port of process 0; None: JAX finds it.
    """

    count: int = 1
    index: int | None = None
    coordinator: str | None = None


def find_processes(environment: Mapping[str, str], configured: Sequence[Any]) -> Processes:
    """Returns the processes as the config describes them, or else the launcher.

    Args:
      environment: os.environ.
      configured: `parallel.processes`, `process_index` and `coordinator` of the config.

    Raises:
      InputError: an index, number or address is missing or wrong.
    """
    missing = [name for name, value in zip(_CONFIG, configured, strict=True) if value is None]
    if not missing:
        return _checked(_CONFIG, *configured)
    if len(missing) < len(_CONFIG):
        raise InputError(f"Set {' and '.join(missing)} too, to run in several processes.")
    for names in _LAUNCHERS:
        if names.processes in environment and names.process_index in environment:
            try:
                count, index = (int(environment[name]) for name in names[:2])
            except ValueError as error:
                raise InputError(f"{' and '.join(names[:2])}: {error}.") from error
            return _checked(names, count, index, environment.get(names.coordinator, ""))
    return Processes(len(environment.get("TPU_WORKER_HOSTNAMES", "").split(",")))


def _checked(names: Names, count: int, index: int, coordinator: str) -> Processes:
    """Refuses an address that would make JAX crash, or wait forever."""
    if not 0 <= index < count:
        raise InputError(
            f"{names.process_index}: {index} is not one of {count} processes, from 0 on."
        )
    if count == 1 or not names.coordinator:
        return Processes(count, index)
    if not (address := _ADDRESS.fullmatch(coordinator)) or not 0 < int(address["port"]) < 2**16:
        raise InputError(
            f"{names.coordinator}: {coordinator!r} is not HOST:PORT of process 0, with a port from "
            "1 to 65535."
        )
    if names is _CONFIG:  # the host of a launcher may still be starting
        try:
            socket.getaddrinfo(address["host"].strip("[]"), None)
        except OSError as error:
            raise InputError(f"{names.coordinator}: {coordinator!r}: {error.strerror}.") from error
    return Processes(count, index, coordinator)


def connect(processes: Processes) -> int:
    """Connects this process to the others, if there are any, and returns its index.

    From then on a process whose coordinator, process 0, is lost ends with exit code 76. One that
    does not reach the others in time ends with exit code 2.

    Raises:
      InputError: JAX cannot find or reach the others.
    """
    if processes.count == 1:
        return 0
    coordinator = processes.coordinator
    address = coordinator or "the address that their launcher gave"
    with _stderr_silenced() as stderr:

        def fail_to_connect() -> None:
            message = (
                f"error: The {processes.count} processes did not connect at {address} within "
                f"{_CONNECT_SECONDS} s. Start all of them, with the address of process 0.\n"
            )
            os.write(stderr, message.encode())
            os._exit(EXIT_INPUT)

        _on_abort(fail_to_connect)
        try:
            jax.distributed.initialize(
                coordinator_address=coordinator,
                num_processes=processes.count if coordinator else None,
                process_id=processes.index if coordinator else None,
                initialization_timeout=_CONNECT_SECONDS,
                heartbeat_timeout_seconds=2 * int(LOST_AFTER_SECONDS),
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"The {processes.count} processes cannot connect: {reason}") from error
    _on_abort(_exit_if_coordinator_lost)
    return int(_runtime.process_id)


@contextlib.contextmanager
def _stderr_silenced() -> Iterator[int]:
    """Silences C code, which reports a user's error as a stack trace; yields the real stream."""
    real = os.dup(2)
    _silence_stderr()
    try:
        yield real
    finally:
        os.dup2(real, 2)
        os.close(real)


def _silence_stderr() -> None:
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _exit_if_coordinator_lost() -> None:
    host, port = _runtime.coordinator_address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError:
        _exit_lost(_COORDINATOR_LOST)


def _exit_lost(message: str, on_lost: Callable[[str], None] = lambda message: None) -> None:
    message = f"{message} Run the same command again to resume from the last checkpoint."
    print(message, file=sys.stderr, flush=True)
    on_lost(message)
    os._exit(EXIT_LOST_PROCESS)


@contextlib.contextmanager
def heartbeats() -> Iterator[None]:
    """Shows the other processes that this one is alive, and keeps its exit code.

    Each process writes the time under its own key at the coordinator; `monitor_processes` reads
    them. At its exit a process waits for the others, which may still write; when one of them is
    lost, JAX would abort it with a stack trace.
    """
    if not jax.distributed.is_initialized():
        yield
        return
    _beat()
    try:
        with _repeated(_beat):
            yield
    except RunError as error:
        code = error.exit_code
        _on_abort(lambda: os._exit(code))
        atexit.register(_silence_stderr)  # runs after everything is printed and before JAX's own
        if not isinstance(error, InputError):  # the others may not have the same error
            _beat(_LEFT)
        raise
    _beat(_LEFT)


@contextlib.contextmanager
def monitor_processes(on_lost: Callable[[str], None] = lambda message: None) -> Iterator[None]:
    """Ends this process with exit code 76 when another is lost, instead of waiting for it.

    A process without a new heartbeat for LOST_AFTER_SECONDS is lost. A failed collective may be the
    first sign of it: exceptions are held back until the monitor has had its time.

    Args:
      on_lost: called with one sentence before the end.
    """
    if jax.process_count() == 1:
        yield
        return
    others = [index for index in range(jax.process_count()) if index != jax.process_index()]
    last_seen = dict.fromkeys(others, ("", time.monotonic()))

    def check() -> None:
        for index, (before, since) in last_seen.items():
            now = ""
            # It may have none yet, or the coordinator is lost: the next own heartbeat finds out.
            with contextlib.suppress(Exception):
                now = _runtime.client.key_value_try_get(_KEY.format(index))
            if now != before or now == _LEFT:
                last_seen[index] = (now, time.monotonic())
            elif time.monotonic() - since > LOST_AFTER_SECONDS:
                _exit_lost(f"Process {index} is lost.", on_lost)

    with _repeated(check):
        try:
            yield
        except Exception as error:
            if not isinstance(error, RunError):
                time.sleep(LOST_AFTER_SECONDS + 2 * HEARTBEAT_SECONDS)
            raise


@contextlib.contextmanager
def _repeated(function: Callable[[], None]) -> Iterator[None]:
    """Calls a function every HEARTBEAT_SECONDS, in a thread."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            function()

    thread = threading.Thread(target=run, name="processes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _beat(value: str = "") -> None:
    """Sets this process's value at the coordinator; by default the time, so that it changes."""
    key, value = _KEY.format(_runtime.process_id), value or str(time.monotonic_ns())
    try:
        _runtime.client.key_value_set(key, value, allow_overwrite=True)
    except Exception:  # jaxlib has no exception class of its own for a lost coordinator
        _exit_lost(_COORDINATOR_LOST)


def _on_abort(handler: Callable[[], None]) -> None:
    """Calls a function when this process is about to abort.

    JAX's runtime aborts, in a thread of its own, as soon as the coordinator does not answer, and
    offers no working alternative (`missed_heartbeat_callback` ends in std::bad_cast). Python's
    signal handlers run too late, so this is one of the C library. If the function returns, the
    process aborts.
    """
    callback = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: handler())
    _callbacks.append(callback)
    ctypes.CDLL(None).signal(signal.SIGABRT, callback)
