"""Set-up of JAX, each time in a new process: it happens once per process."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from alexnet_jax.errors import InputError
from alexnet_jax.runtime import devices

ROOT = Path(__file__).parents[2]
# Two small programs, cached although they compile at once.
TINY = """
import sys
import jax
from alexnet_jax.runtime import devices
count = devices.set_up(int(sys.argv[1]) or None, use_cache=sys.argv[2] == "cache")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(count, jax.jit(lambda x: 3 * x + 1)(2.0), jax.jit(lambda x: 5 * x)(2.0))
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
    assert run_tiny(tmp_path).stdout == f"{min(2, os.cpu_count() or 1)} 7.0 10.0\n"
    whole = entries(tmp_path)
    (first, content), (second, _) = whole.items()
    damaged = {first: content[: len(content) // 2], second: b"junk"}
    for name, part in damaged.items():
        (tmp_path / "alexnet_jax" / "programs" / name).write_bytes(part)
    process = run_tiny(tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.endswith(" 7.0 10.0\n")
    now = entries(tmp_path)
    assert now.keys() == whole.keys()
    assert not now.items() & damaged.items()


def test_devices_without_a_cache(tmp_path: Path) -> None:
    process = run_tiny(tmp_path, cpu_devices=3, cache="no cache")
    assert (process.returncode, process.stderr, process.stdout) == (0, "", "3 7.0 10.0\n")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cannot_be_created_is_not_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert devices.set_up(None, use_cache=True) == jax.device_count()


def test_an_unknown_platform_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_devices() -> list[jax.Device]:
        raise RuntimeError("Unknown backend abacus.")

    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    monkeypatch.setattr(jax, "devices", no_devices)
    with pytest.raises(InputError, match=r"JAX_PLATFORMS='abacus'.*Unknown backend"):
        devices.set_up(None, use_cache=False)


@pytest.mark.slow
def test_a_run_on_an_unknown_platform_is_refused_without_a_traceback(tmp_path: Path) -> None:
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
