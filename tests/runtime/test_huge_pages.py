"""Huge pages: when they are requested, and that the command restarts with all its arguments."""

import os
import subprocess
import sys

import pytest

from alexnet_jax.runtime import huge_pages

MADVISE, GLIBC = "always [madvise] never\n", ("glibc", "2.36")
ON = "glibc.malloc.hugetlb=1"


@pytest.mark.parametrize(
    ("environment", "enabled", "libc", "expected"),
    [
        ({}, MADVISE, GLIBC, ON),
        ({}, MADVISE, ("glibc", "2.35"), ON),
        ({"GLIBC_TUNABLES": ""}, MADVISE, GLIBC, ON),
        ({"GLIBC_TUNABLES": "glibc.cpu.x=1"}, MADVISE, GLIBC, f"glibc.cpu.x=1:{ON}"),
        ({"GLIBC_TUNABLES": ON}, MADVISE, GLIBC, None),  # restarted already
        ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, MADVISE, GLIBC, None),
        ({}, "[always] madvise never\n", GLIBC, None),  # on for every process
        ({}, "always madvise [never]\n", GLIBC, None),
        ({}, "", GLIBC, None),  # not Linux
        ({}, MADVISE, ("glibc", "2.34"), None),
        ({}, MADVISE, ("", ""), None),  # musl
    ],
)
def test_when_huge_pages_are_requested(
    environment: dict[str, str], enabled: str, libc: tuple[str, str], expected: str | None
) -> None:
    assert huge_pages.tunables(environment, enabled, libc) == expected


SCRIPT = """
import os, pathlib, sys
from alexnet_jax.runtime import huge_pages
huge_pages.ENABLED = pathlib.Path(sys.argv[1])
huge_pages.platform.libc_ver = lambda: ("glibc", "2.36")
print(os.getpid(), flush=True)
huge_pages.restart_with_huge_pages()
print(os.environ["GLIBC_TUNABLES"], sys.argv[2:])
"""


def test_the_same_process_restarts_with_all_its_arguments(tmp_path) -> None:
    enabled = tmp_path / "enabled"
    enabled.write_text(MADVISE)
    environment = {key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(enabled), "--config.a=b c", "é"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    first, second, output = done.stdout.splitlines()
    assert first == second  # the process id
    assert output == f"{ON} ['--config.a=b c', 'é']"
    assert not done.stderr
