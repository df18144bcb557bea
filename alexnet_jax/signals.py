"""SIGTERM and Ctrl-C as a question asked between two steps, instead of an interruption."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether the process was asked to stop.

    The first signal only sets it; a second Ctrl-C interrupts as usual.
    """
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
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
