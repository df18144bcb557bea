"""The console that jobs print to."""

import os
import sys

from rich.console import Console


class PipeConsole(Console):
    """A console whose reader may leave: `| head` ends the output, not the program."""

    def on_broken_pipe(self) -> None:  # noqa: D102
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
