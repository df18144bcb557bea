"""The program: `python -m alexnet_jax.main --config=FILE[:ARG] [--config.KEY=VALUE ...]`."""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from alexnet_jax.errors import EXIT_DONE, config_errors, report
from alexnet_jax.runtime import huge_pages, signals
from alexnet_jax.runtime.console import PipeConsole

if TYPE_CHECKING:
    from alexnet_jax.config.command_line import Command


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command, without `args` that of this process; returns its exit code (`errors`)."""
    console = PipeConsole(markup=False, highlight=False, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alexnet_jax").setLevel(logging.INFO)
    from alexnet_jax.config import command_line  # slow, and Orbax would configure logging first

    try:
        command = command_line.parse(sys.argv[1:] if args is None else args)
        if command.job:
            run(command, console)
        else:
            console.print(command_line.usage())
    except BaseException as error:
        return report(error)
    return EXIT_DONE


def run(command: "Command", console: PipeConsole) -> None:
    """Joins the other processes of the run, if there are any, and runs the job of a command.

    Raises:
      InputError: with every error of the command and its config, one per line.
    """
    from alexnet_jax.config import checks, command_line, fine_tuning
    from alexnet_jax.parallel import distributed
    from alexnet_jax.runtime import devices

    if any(error.startswith("parallel.") for error in command.errors):
        raise config_errors(command.errors)  # processes cannot join by keys that are wrong
    parallel = command.config.parallel
    described = (parallel.processes, parallel.process_index, parallel.coordinator)
    processes = distributed.find_processes(os.environ, described)
    if distributed.connect(processes) > 0:
        console.quiet = True
        logging.getLogger("alexnet_jax").setLevel(logging.WARNING)
    with distributed.heartbeats():
        emulated = command.job == "estimate"  # of devices that are not here
        wanted = parallel.devices if emulated else parallel.cpu_devices
        num_devices = devices.set_up(wanted, command.config.compilation_cache, cpu_only=emulated)
        command = fine_tuning.inherit(command)
        errors = list(command.errors)
        if command.job not in command_line.MODEL_JOBS:  # which take keys of the model first
            errors += checks.errors(command, num_devices, processes.count)
        if errors:
            raise config_errors(errors)
        job = importlib.import_module(f"alexnet_jax.jobs.{command.job}")
        signals.raise_on_interrupt()
        job.run(command, console)


def start() -> None:
    """Starts the program in this process, with large memory pages if they are available."""
    signals.end_on_interrupt()
    huge_pages.restart_with_huge_pages()
    code = main()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C must not interrupt the exit
    sys.exit(code)


if __name__ == "__main__":
    start()
