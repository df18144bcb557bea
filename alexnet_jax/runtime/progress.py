"""How far a job is: a bar on a terminal, a line now and then in a log."""

import datetime
import logging
import time

from rich import progress as rich_progress
from rich.console import Console

_log = logging.getLogger(__name__)
FIRST_LINE_SECONDS = 5.0
SECONDS_BETWEEN_LINES = 15.0


class Progress:
    """Shows the progress of one job; a context manager.

    A log gets a line after 5 seconds, then every 15 seconds at first, and less often the longer the
    job lasts: after an hour every 6 minutes.
    """

    def __init__(self, console: Console, title: str, total: int | None = None, start: int = 0):
        """Creates it.

        Args:
          console: a terminal gets the bar.
          title: what is counted.
          total: the count at the end, if it is known.
          start: the count at the beginning.
        """
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}", style="bold", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[status]}", markup=False),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("ETA"),
            rich_progress.TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._id = self._bar.add_task(title, total=total, completed=start, status="")
        self._start, self._began = start, time.monotonic()
        self._next_line = self._began + FIRST_LINE_SECONDS

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: int, total: int | None = None) -> None:
        """Moves the bar; a log gets a line if it is time for one."""
        self._bar.update(self._id, completed=done, total=total)
        if self._bar.disable and time.monotonic() >= self._next_line:
            self._log_line()

    def report(self, done: int, status: str) -> None:
        """Shows a text next to the bar; a log gets it as a line."""
        self._bar.update(self._id, completed=done, status=status)
        if self._bar.disable:
            self._log_line(status)

    def _log_line(self, status: str = "") -> None:
        (task,), now = self._bar.tasks, time.monotonic()
        elapsed = now - self._began
        self._next_line = now + max(SECONDS_BETWEEN_LINES, elapsed / 10)
        each = elapsed / max(task.completed - self._start, 1)
        _log.info(
            "%s %d/%s  %s  ETA %s",
            *(task.description, task.completed, task.total or "?", status or f"{each:.3g} s each"),
            datetime.timedelta(seconds=round(each * (task.remaining or 0))),
        )
