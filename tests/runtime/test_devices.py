"""Set-up of JAX, each time in a new process: it happens once per process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet_jax.runtime import devices

ROOT = Path(__file__).parents[2]
# A small program, cached although it compiles at once.
TINY = """
import sys
import jax
from alexnet_jax.runtime import devices
count = devices.set_up(int(sys.argv[1]) or None, use_cache=sys.argv[2] == "cache")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(count, jax.jit(lambda x: 3 * x + 1)(2.0))
"""


def run_tiny(
    cache_home: Path, *, cpu_devices: int = 0, cache: str = "cache"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TINY, str(cpu_devices), cache],
        env={**os.environ, "XDG_CACHE_HOME": str(cache_home)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def entries(cache_home: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in (cache_home / "alexnet_jax" / "programs").glob("*-cache")
    }


def test_a_damaged_cache_entry_is_replaced_without_a_warning(tmp_path: Path) -> None:
    """JAX itself would warn of it at every start and never replace it."""
    assert run_tiny(tmp_path).stdout == f"{min(2, os.cpu_count() or 1)} 7.0\n"
    whole = entries(tmp_path)
    assert whole
    for damage in (lambda content: content[: len(content) // 2], lambda content: b"junk"):
        damaged = {name: damage(content) for name, content in whole.items()}
        for name, content in damaged.items():
            (tmp_path / "alexnet_jax" / "programs" / name).write_bytes(content)
        process = run_tiny(tmp_path)
        assert (process.returncode, process.stderr) == (0, "")
        assert process.stdout.endswith(" 7.0\n")
        now = entries(tmp_path)
        assert now.keys() == whole.keys()
        assert not now.items() & damaged.items()


def test_devices_without_a_cache(tmp_path: Path) -> None:
    process = run_tiny(tmp_path, cpu_devices=3, cache="no cache")
    assert (process.returncode, process.stderr, process.stdout) == (0, "", "3 7.0\n")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cannot_be_created_is_not_needed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    process = run_tiny(tmp_path / "file")
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith(" 7.0\n")


def test_an_unknown_platform_is_refused_without_a_traceback(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            *(sys.executable, "-m", "alexnet_jax.main"),
            *("--config=configs/quickstart.py", f"--workdir={tmp_path}/run"),
        ],
        env={**os.environ, "JAX_PLATFORMS": "abacus", "XDG_CACHE_HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    assert "JAX_PLATFORMS='abacus'" in process.stderr
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "run").exists()


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert devices.cache_folder() == tmp_path / "alexnet_jax" / "programs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert devices.cache_folder() == tmp_path / ".cache" / "alexnet_jax" / "programs"
