"""The ways a run can end other than well, each with its exit code, and hints for typing errors."""

import difflib
import sys
from collections.abc import Sequence

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_INPUT = 2
EXIT_DIVERGED = 3
EXIT_PREEMPTED = 75
EXIT_LOST_PROCESS = 76
EXIT_INTERRUPTED = 130


class RunError(Exception):
    """An expected end of a run, reported as one message without a traceback."""

    exit_code = EXIT_INTERNAL
    status = "failed"

    def __init__(self, message: str, step: int | None = None):
        """Takes the message for the user and, where it matters, the step reached."""
        super().__init__(message)
        self.step = step


class InputError(RunError):
    """The user's config, path, image, checkpoint or weight file is invalid.

    The message says what is wrong, where, and how to fix it.
    """

    exit_code = EXIT_INPUT


def config_errors(errors: Sequence[str]) -> InputError:
    """Returns all errors of a config as one, one per line."""
    return InputError("\n  ".join([f"Errors in the config ({len(errors)}):", *errors]))


class DivergedError(RunError):
    """The loss or a gradient stopped being a finite number."""

    exit_code = EXIT_DIVERGED
    status = "diverged"


class PreemptedError(RunError):
    """The run was asked to stop and has saved its state."""

    exit_code = EXIT_PREEMPTED
    status = "preempted"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Returns ' Did you mean X?' for the closest known name, or ''.

    Args:
      name: as the user typed it; only the part before any '=' counts.
      known: the valid names; where they are dotted paths, a correct last part in the wrong section
        finds its path (model.momentum: optimizer.momentum).
    """
    name = name.partition("=")[0][:100]  # the time to compare grows with the length
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not close:
        last = name.rsplit(".", 1)[-1]
        close = [path for path in known if path.rsplit(".", 1)[-1] == last][:1]
    return f" Did you mean {close[0]!r}?" if close else ""


class StoppedError(RunError):
    """The user pressed Ctrl-C, in training twice: the program stopped at once."""

    exit_code = EXIT_INTERRUPTED
    status = "preempted"


def as_run_error(error: BaseException) -> RunError | None:
    """Returns the expected end that an exception means: Ctrl-C, a full disk and their like."""
    if isinstance(error, KeyboardInterrupt):
        return StoppedError("Stopped.")
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return InputError(f"{where}{error.strerror}.")
    return error if isinstance(error, RunError) else None


def report(error: BaseException) -> int:
    """Prints an expected end as one message and returns its exit code; raises any other error."""
    ended = as_run_error(error)
    if ended is None:
        raise error
    print(f"error: {ended}" if isinstance(ended, InputError) else ended, file=sys.stderr)
    return ended.exit_code
