"""Measurements, each `python -m benchmarks.NAME`; the last line printed is JSON."""

import sys
from collections.abc import Callable

from absl import app

import alexnet_jax.plots  # noqa: F401  before matplotlib: it ignores unknown backends
from alexnet_jax.errors import InputError


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a benchmark with flags; a user's mistake ends it with a sentence and exit code 2."""
    try:
        app.run(main)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
