"""How far a job is: a bar on a terminal, a line now and then in a log."""

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
        self._task = self._bar.add_task(title, total=total, completed=start, status="")
        self._title, self._total, self._start, self._done = title, total, start, start
        self._began = time.monotonic()
        self._next_line = self._began + FIRST_LINE_SECONDS

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: int, total: int | None = None) -> None:
        """Moves the bar; a log gets a line if it is time for one."""
        self._done, self._total = done, total or self._total
        self._bar.update(self._task, completed=done, total=self._total)
        if self._bar.disable and time.monotonic() >= self._next_line:
            self._log_line("")

    def report(self, done: int, status: str) -> None:
        """Shows a text next to the bar; a log gets it as a line."""
        self._done = done
        if self._bar.disable:
            self._log_line(f"  {status}")
        else:
            self._bar.update(self._task, status=status)

    def _log_line(self, status: str) -> None:
        now = time.monotonic()
        elapsed, done = now - self._began, self._done - self._start
        self._next_line = now + max(SECONDS_BETWEEN_LINES, elapsed / 10)
        rate = f"  {elapsed / done:.3g} s each" if done and not status else ""
        left = elapsed / done * ((self._total or self._done) - self._done) if done else 0.0
        _log.info(
            "%s %d/%s%s%s  ETA %s",
            *(self._title, self._done, self._total or "?", status, rate, _format_time(left)),
        )


def _format_time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
