"""A progress bar on a terminal, plain lines in a log."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import Progress

_log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 15.0


@contextlib.contextmanager
def bar(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of (done, total) that shows how far a job is, with its ETA."""
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(what, total=None)
        start = told = time.monotonic()

        def advance(done: int, total: int) -> None:
            nonlocal told
            progress.update(task, completed=done, total=total)
            now = time.monotonic()
            if progress.disable and now - told > SECONDS_BETWEEN_LINES:
                told = now
                left = (now - start) / max(done, 1) * (total - done)
                _log.info("%s: %d/%d, ETA %.0f s", what, done, total, left)

        yield advance
