"""The program: `python -m alexnet_jax --config=FILE[:ARG] [--config.KEY=VALUE ...]`."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from alexnet_jax.config import command_line
from alexnet_jax.errors import EXIT_DONE, InputError, RunError
from alexnet_jax.runtime import huge_pages
from alexnet_jax.runtime.console import PipeConsole


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code, one of those in `errors`.

    Args:
      args: the arguments without the program's name; None: those of this process.
    """
    console = PipeConsole(markup=False, highlight=False, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alexnet_jax").setLevel(logging.INFO)
    try:
        command = command_line.parse(sys.argv[1:] if args is None else args)
        if command.job:
            run(command, console)
        else:
            console.print(command_line.usage())
    except RunError as error:
        print(f"error: {error}" if isinstance(error, InputError) else error, file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


def run(command: command_line.Command, console: Console) -> None:
    """Checks the command as a whole, then runs its job.

    Raises:
      InputError: with every error of the command and its config, one per line.
    """
    from alexnet_jax.parallel import distributed  # JAX is slow to import

    processes = distributed.find_processes(os.environ, command.config.parallel)
    if distributed.connect(processes) > 0:
        console.quiet = True
        logging.getLogger("alexnet_jax").setLevel(logging.WARNING)
    with distributed.heartbeats():
        _run_job(command, console, processes.count)


def _run_job(command: command_line.Command, console: Console, num_processes: int) -> None:
    from alexnet_jax.config import checks
    from alexnet_jax.runtime import devices

    config = command.config
    estimated = command.job == "estimate"  # for devices that do not exist here: emulated on the CPU
    num_devices = devices.set_up(
        config.parallel.devices if estimated else config.parallel.cpu_devices,
        config.compilation_cache,
        cpu_only=estimated,
    )
    errors = [*command.errors, *checks.errors(command, num_devices, num_processes)]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise InputError("\n".join([f"{count} in the config:", *(f"  {e}" for e in errors)]))
    importlib.import_module(f"alexnet_jax.jobs.{command.job}").run(command, console)


def start() -> None:
    """Starts the program in this process, with large memory pages if they are available."""
    huge_pages.restart_with_huge_pages()
    sys.exit(main())


if __name__ == "__main__":
    start()
