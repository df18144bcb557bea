"""SIGTERM and Ctrl-C as a question asked between two steps, instead of an interruption."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Gives a function of the step that tells whether the run was asked to stop there.

    The first signal only sets it; a second Ctrl-C interrupts as usual. Of several processes, all
    are told at the same step when one was asked.
    """
    agree = _agreed if jax.process_count() > 1 else _own
    with agree() as stop_requested:
        yield stop_requested


@contextlib.contextmanager
def _agreed() -> Iterator[Callable[[int], bool]]:
    """JAX itself catches SIGTERM and has the processes agree on a step; Ctrl-C is made one."""
    previous = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield multihost_utils.reached_preemption_sync_point
    finally:
        signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _own() -> Iterator[Callable[[int], bool]]:
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        del frame
        received.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {
        number: signal.signal(number, receive) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield lambda step: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
