"""Several processes: how they find each other, agree to stop, and notice that one is gone."""

import contextlib
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from alexnet_jax.errors import EXIT_LOST_PEER, InputError, RunError

BEAT_SECONDS = 3.0
LOST_AFTER_SECONDS = 30.0
_CONNECT_SECONDS = 120


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

    Raises:
      InputError: they are not there in time.
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
    try:
        jax.distributed.initialize(
            **known,  # type: ignore[arg-type]
            initialization_timeout=_CONNECT_SECONDS,
            heartbeat_timeout_seconds=2 * int(LOST_AFTER_SECONDS),
            shutdown_timeout_seconds=int(LOST_AFTER_SECONDS),
        )
    except RuntimeError as error:
        raise InputError(
            f"The {peers.count} processes did not meet at {peers.address or 'their launcher'} "
            f"within {_CONNECT_SECONDS} s: {str(error).splitlines()[0]}"
        ) from error
    return jax.process_index() if peers.index is None else peers.index


@contextlib.contextmanager
def watch_peers(on_lost: Callable[[str], None]) -> Iterator[None]:
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
    except RunError:  # an end that all processes come to
        watch.close()
        raise
    except Exception:
        time.sleep(LOST_AFTER_SECONDS + 2 * BEAT_SECONDS)
        raise
    watch.close()


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
        self._client = _client()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peer-watch", daemon=True)
        self._lost = ""
        self._thread.start()

    def close(self) -> None:
        """Tells the peers that this process leaves of its own will, and stops watching."""
        self._stop.set()
        self._thread.join()
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
                    self._end("Process 0, the coordinator, is gone.")
                continue
            for index, value in now.items():
                before, since = seen[index]
                if value != before or value == "left":
                    seen[index] = (value, time.monotonic())
                elif time.monotonic() - since > LOST_AFTER_SECONDS:
                    self._end(f"Process {index} is gone.")

    def _end(self, message: str) -> None:
        message = f"{message} The same command goes on from the last checkpoint."
        print(message, file=sys.stderr, flush=True)
        self._on_lost(message)
        os._exit(EXIT_LOST_PEER)


def _key(index: int) -> str:
    return f"alexnet_jax/beat/{index}"


def _client() -> Any:
    """Returns the client of the coordinator, which JAX has no public name for."""
    from jax._src import distributed

    return distributed.global_state.client
