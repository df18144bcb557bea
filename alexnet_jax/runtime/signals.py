"""SIGTERM and Ctrl-C as a question asked between two steps, instead of an interruption.

An exception that a signal handler raises is lost when it lands in a callback of the garbage
collector or of a weak reference, of which tracing a program has many. Here a flag remembers it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from alexnet_jax.errors import EXIT_INTERRUPTED

_ACKNOWLEDGED = b"Stopping after this step; saving the state.\n"
_STOP_AT_ONCE = b"Press Ctrl-C again to stop at once, without saving.\n"
_STOPPED = b"Stopped.\n"
_GRACE_SECONDS = 10.0  # for the end that a second signal began, before the process is ended


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether the run was asked to stop: call it at each step.

    The first signal is acknowledged on standard error and only sets the answer. A second one raises
    KeyboardInterrupt, and further ones are ignored until the end. Where a callback swallows the
    exception, the function raises it again, or the process ends with exit code 130 a little later.
    If one of several processes is asked, all stop at the same call; all must call equally often.
    """
    import jax  # slow: the program starts with this module
    from jax.experimental import multihost_utils

    several = jax.process_count() > 1
    received: list[int] = []
    calls = 0

    def receive(number: int, frame: object) -> None:
        del frame
        if several:  # JAX itself catches SIGTERM and has all processes agree on a call
            _print(_ACKNOWLEDGED)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        received.append(number)
        if len(received) > 1:
            for each in caught:
                signal.signal(each, signal.SIG_IGN)
            signal.setitimer(signal.ITIMER_REAL, _GRACE_SECONDS)
            raise KeyboardInterrupt
        _print(_ACKNOWLEDGED + (_STOP_AT_ONCE if number == signal.SIGINT else b""))

    def stop_requested() -> bool:
        nonlocal calls
        calls += 1  # JAX counts from 1: a resumed run, asked before its first step, stops there
        if len(received) > 1:
            raise KeyboardInterrupt
        return multihost_utils.reached_preemption_sync_point(calls) if several else bool(received)

    caught = [signal.SIGINT] if several else [signal.SIGTERM, signal.SIGINT]
    handlers = {signal.SIGALRM: _end, **dict.fromkeys(caught, receive)}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}  # only the main thread may catch signals
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop_requested
    finally:
        if previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)


def ignore_requests() -> None:
    """Ignores signals until `stop_requests` ends: how the run ends is decided and written."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_IGN)


def end_on_interrupt() -> None:
    """Lets Ctrl-C end the process with one line: while it imports, an exception does harm."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _end)


def raise_on_interrupt() -> None:
    """Lets Ctrl-C raise KeyboardInterrupt again, so that a job can clean up behind itself."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: object) -> None:
    del number, frame
    _print(_STOPPED)
    os._exit(EXIT_INTERRUPTED)


def _print(text: bytes) -> None:
    """Writes past Python's buffers, which the signal may have interrupted."""
    with contextlib.suppress(OSError):
        os.write(2, text)
