"""Huge memory pages for the arrays of a CPU run.

A step on the CPU allocates and frees arrays of hundreds of megabytes, and spends a tenth of its
time on faults of 4 kB pages (docs/performance.md). Linux gives 2 MB pages to programs that request
them; glibc does so if a tunable is set before the process starts.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

TUNABLES, WANTED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
MIN_GLIBC = (2, 35)
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables(environment: Mapping[str, str], enabled: str, libc: tuple[str, str]) -> str | None:
    """Returns the value of GLIBC_TUNABLES that requests huge pages; None: nothing to change.

    Args:
      environment: of the process. A tunable that is already set, to 0 too, is respected.
      enabled: the setting of the kernel, such as "always [madvise] never".
      libc: name and version of the C library.
    """
    name, version = libc
    given = environment.get(TUNABLES, "")
    unavailable = "[madvise]" not in enabled or name != "glibc"
    if unavailable or WANTED in given or tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
        return None
    return ":".join(filter(None, (given, f"{WANTED}=1")))


def restart_with_huge_pages() -> None:
    """Restarts this command with huge pages where they are available and not yet enabled.

    The process keeps its id, its open files and its signal handlers. Python starts again, so call
    this before anything slow is imported.
    """
    enabled = ENABLED.read_text() if ENABLED.exists() else ""
    if value := tunables(os.environ, enabled, platform.libc_ver()):
        os.execve(sys.executable, sys.orig_argv, {**os.environ, TUNABLES: value})
