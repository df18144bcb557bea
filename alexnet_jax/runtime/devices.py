"""Set-up of JAX for a run: emulated CPU devices and the cache of compiled programs."""

import contextlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import jax

from alexnet_jax.errors import InputError

_READ_FAILURE = re.compile(r"Error reading persistent compilation cache entry for '([^']+)'")


def set_up(cpu_devices: int | None, use_cache: bool, *, cpu_only: bool = False) -> int:
    """Prepares JAX and returns the number of devices.

    Args:
      cpu_devices: devices that a CPU is divided into; None: JAX_NUM_CPU_DEVICES, else 2 if it has
        two cores or more, else 1; with several processes 1 each.
      use_cache: whether compiled programs are cached in the user's cache folder.
      cpu_only: whether other devices are ignored.

    Raises:
      InputError: JAX finds no device of the requested platform.
    """
    default = 1 if jax.distributed.is_initialized() else min(2, os.cpu_count() or 1)
    count = cpu_devices or int(os.environ.get("JAX_NUM_CPU_DEVICES") or default)
    with contextlib.suppress(RuntimeError):  # a notebook that has used JAX keeps its devices
        jax.config.update("jax_num_cpu_devices", count)
        if cpu_only:
            jax.config.update("jax_platforms", "cpu")
    if use_cache:
        _keep_programs(cache_folder())
    try:
        return len(jax.devices())
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is not installed
        requested = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device with JAX_PLATFORMS={requested!r}: unset it, or install "
            f"alexnet_jax[cuda] or alexnet_jax[tpu]. {error}".rstrip()
        ) from error


def cache_folder() -> Path:
    """Returns where compiled programs are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "alexnet_jax" / "programs"


def _keep_programs(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # an unwritable home costs time, not the run
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _evict_damaged(folder)


def _evict_damaged(folder: Path) -> None:
    """Removes a damaged entry when JAX fails to read it.

    JAX does not write its cache atomically, and warns at every start about an entry that a kill cut
    short.
    """
    show = warnings.showwarning

    def remove_instead(message: Warning | str, *arguments: Any, **keywords: Any) -> None:
        if match := _READ_FAILURE.search(str(message)):
            for entry in folder.glob(f"{match[1]}-*"):
                entry.unlink(missing_ok=True)
        else:
            show(message, *arguments, **keywords)

    warnings.showwarning = remove_instead
