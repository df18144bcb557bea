"""What every worker process does first."""

import contextlib
import multiprocessing
import os
import signal
import threading


def follow_parent() -> None:
    """Readies a worker: Ctrl-C is the parent's to answer, and without a parent there is no work."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(KeyboardInterrupt):
            parent.join()
        os._exit(1)
