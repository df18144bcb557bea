"""The console that jobs print to."""

import os
import sys

from rich.console import Console


def counted(count: int, one: str, many: str) -> str:
    """Returns a number with its noun: 1 process, 2 processes."""
    return f"{count:,} {one if count == 1 else many}"


class PipeConsole(Console):
    """A console whose reader may leave: `| head` ends the output, not the program."""

    def on_broken_pipe(self) -> None:  # noqa: D102
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
