"""Large pages of memory for the arrays of a CPU run.

A step on the CPU takes and frees arrays of hundreds of megabytes, and a tenth of its time goes into
finding them in pages of 4 kB (docs/performance.md). Linux hands out pages of 2 MB to those who ask,
and glibc asks for its users if it is told so before a process starts.
"""

import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

TUNABLES, WANTED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
LEAST_GLIBC = (2, 35)
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tunables(environment: Mapping[str, str], enabled: str, libc: tuple[str, str]) -> str | None:
    """Returns the value GLIBC_TUNABLES must have for large pages; None: leave all as it is.

    Args:
      environment: of the process. Whoever set the tunable already, to 0 too, is heeded.
      enabled: what the kernel says of large pages: "always [madvise] never".
      libc: name and version of the C library.
    """
    name, version = libc
    given = environment.get(TUNABLES, "")
    if "[madvise]" not in enabled or name != "glibc" or WANTED in given:
        return None
    if tuple(map(int, version.split(".")[:2])) < LEAST_GLIBC:
        return None
    return ":".join(filter(None, (given, f"{WANTED}=1")))


def restart_with_huge_pages() -> None:
    """Starts this very command anew with large pages, where they can be had and are not yet on.

    The process keeps its number, its files and its signals. It costs the time of starting Python,
    so call it before anything slow is imported.
    """
    enabled = ENABLED.read_text() if ENABLED.exists() else ""
    value = tunables(os.environ, enabled, platform.libc_ver())
    if value is not None:
        os.execve(sys.executable, sys.orig_argv, {**os.environ, TUNABLES: value})
