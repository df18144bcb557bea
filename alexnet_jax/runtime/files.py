"""Files that are complete on disk or absent."""

import contextlib
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from alexnet_jax.errors import InputError

_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: str | bytes | Callable[[Path], Any]) -> None:
    """Writes a file so that a reader, or a kill, finds the old content or the new, never a part.

    Args:
      path: the file.
      content: its text or bytes, or a function that writes them to the path it is given.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if callable(content):
            content(partial)
        else:
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_folder(folder: Path, advice: str) -> Iterator[Path]:
    """Yields a folder inside of `folder` for files that are not complete; deletes it at the end.

    Args:
      folder: created, with its parents; what was created and stays empty is deleted again.
      advice: what to do where it cannot be written, a sentence.

    Raises:
      InputError: it cannot be written.
    """
    partial = folder / ".partial"
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{folder} cannot be written: {reason}. {advice}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        for path in created:
            with contextlib.suppress(OSError):
                path.rmdir()  # if it is empty


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file against other programs; the system frees it when the program ends.

    Raises:
      InputError: another program holds it: `what` is in use.
      OSError: it cannot be written.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise InputError(f"{what} is in use by {file.read() or 'another process'}.") from error
        except OSError as error:
            _log.warning("%s cannot be locked: %s.", what, error.strerror)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
