"""SIGTERM and Ctrl-C as a question asked between two steps, instead of an interruption."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

_ACKNOWLEDGED = b"Stopping after this step; saving the state.\n"
_STOP_AT_ONCE = b"Press Ctrl-C again to stop at once, without saving.\n"


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step that returns whether the run was asked to stop there.

    The first signal is acknowledged on standard error and only sets the answer. A second one, or
    one before the function was ever called, raises KeyboardInterrupt, and further ones are ignored
    until the end. If one of several processes is asked, all stop at the same step.
    """
    several = jax.process_count() > 1
    received: list[int] = []
    asked = False

    def receive(number: int, frame: object) -> None:
        del frame
        if several:  # JAX itself catches SIGTERM and has all processes agree on a step
            _print(_ACKNOWLEDGED)
            os.kill(os.getpid(), signal.SIGTERM)
        elif received or not asked:
            for each in previous:
                signal.signal(each, signal.SIG_IGN)
            raise KeyboardInterrupt
        else:
            received.append(number)
            _print(_ACKNOWLEDGED + (_STOP_AT_ONCE if number == signal.SIGINT else b""))

    def stop_requested(step: int) -> bool:
        nonlocal asked
        asked = True
        return multihost_utils.reached_preemption_sync_point(step) if several else bool(received)

    caught = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
    if threading.current_thread() is not threading.main_thread():
        caught = []  # only the main thread may catch signals
    previous = {number: signal.signal(number, receive) for number in caught}
    try:
        yield stop_requested
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print(text: bytes) -> None:
    """Writes past Python's buffers, which the signal may have interrupted."""
    with contextlib.suppress(OSError):
        os.write(2, text)
