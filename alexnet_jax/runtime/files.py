"""Files that are complete on disk or absent."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
        elif isinstance(content, bytes):
            partial.write_bytes(content)
        else:
            partial.write_text(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
