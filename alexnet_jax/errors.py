"""The ways a run can end other than well, each with its exit code."""

EXIT_DONE = 0
EXIT_INTERNAL = 1
EXIT_INPUT = 2
EXIT_DIVERGED = 3
EXIT_PREEMPTED = 75
EXIT_LOST_PROCESS = 76


class RunError(Exception):
    """An expected end of a run, reported as one message without a traceback."""

    exit_code = EXIT_INTERNAL
    status = "failed"

    def __init__(self, message: str, step: int | None = None):
        """Takes the message for the user and, where it matters, the step reached."""
        super().__init__(message)
        self.step = step


class InputError(RunError):
    """The user's config, path, picture, checkpoint or weight file is at fault.

    The message names the thing and says how to mend it.
    """

    exit_code = EXIT_INPUT


class DivergedError(RunError):
    """The loss or the gradients stopped being finite numbers."""

    exit_code = EXIT_DIVERGED
    status = "diverged"


class PreemptedError(RunError):
    """The run was asked to stop and has saved its state."""

    exit_code = EXIT_PREEMPTED
    status = "preempted"
