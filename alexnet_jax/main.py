"""The program: `python -m alexnet_jax.main --config=FILE[:ARG] [--config.KEY=VALUE ...]`."""

import importlib
import logging
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from alexnet_jax.config import command_line
from alexnet_jax.errors import EXIT_DONE, InputError, RunError
from alexnet_jax.runtime import huge_pages


def main(words: Sequence[str]) -> int:
    """Runs one command and returns its exit code.

    0 done, 1 a defect of ours, 2 invalid config or input, 3 diverged, 75 preempted with the state
    saved, 76 lost a peer.
    """
    console = Console(markup=False, highlight=False, soft_wrap=True)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alexnet_jax").setLevel(logging.INFO)
    try:
        run(command_line.parse(words), console)
    except RunError as error:
        print(f"error: {error}" if isinstance(error, InputError) else error, file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


def run(command: command_line.Command, console: Console) -> None:
    """Checks the command as a whole, then hands it to the job it names.

    Raises:
      InputError: with every mistake of the command and its config, one a line.
    """
    from alexnet_jax.parallel import distributed  # JAX is slow to import

    peers = distributed.find_processes(os.environ, command.config.parallel)
    if distributed.connect(peers) > 0:
        console.quiet = True
        logging.getLogger("alexnet_jax").setLevel(logging.WARNING)
    with distributed.heartbeats():
        _run_job(command, console, peers.count)


def _run_job(command: command_line.Command, console: Console, num_processes: int) -> None:
    from alexnet_jax.config import checks
    from alexnet_jax.runtime import devices

    config = command.config
    planned = config.job == "plan"  # for devices that are not here, on as many parts of the CPU
    num_devices = devices.set_up(
        config.parallel.devices if planned else config.parallel.cpu_devices,
        config.compilation_cache,
        cpu_only=planned,
    )
    cross_field_errors = checks.cross_field_errors(config, num_devices, num_processes)
    mistakes = [*command.mistakes, *cross_field_errors]
    if mistakes:
        count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "A mistake"
        raise InputError("\n".join([f"{count} in the config:", *(f"  {m}" for m in mistakes)]))
    job = "dry_run" if command.dry_run else config.job
    importlib.import_module(f"alexnet_jax.jobs.{job}").run(command, console)


if __name__ == "__main__":
    huge_pages.restart_with_huge_pages()
    sys.exit(main(sys.argv))
