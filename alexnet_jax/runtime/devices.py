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
      cpu_devices: parts a CPU is divided into; None: as JAX_NUM_CPU_DEVICES says, else 2 where it
        has two cores or more, else 1; one for each of several processes.
      use_cache: whether compiled programs are kept in the user's cache folder.
      cpu_only: whether other devices are left alone.

    Raises:
      InputError: JAX finds no device of the kind asked for.
    """
    with contextlib.suppress(RuntimeError):  # a notebook has used JAX already: its devices stand
        jax.config.update("jax_num_cpu_devices", cpu_devices or _parts_of_a_cpu())
        if cpu_only:
            jax.config.update("jax_platforms", "cpu")
    if use_cache:
        _keep_programs(cache_folder())
    try:
        return len(jax.devices())
    except (RuntimeError, AssertionError) as error:  # the latter where a plugin is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX finds no device with JAX_PLATFORMS={asked!r}: unset it, or install "
            f"alexnet_jax[cuda] or alexnet_jax[tpu]. {error}".rstrip()
        ) from error


def _parts_of_a_cpu() -> int:
    told = os.environ.get("JAX_NUM_CPU_DEVICES", "")
    if told.isdecimal():
        return int(told)
    return 1 if jax.distributed.is_initialized() else min(2, os.cpu_count() or 1)


def cache_folder() -> Path:
    """Returns where compiled programs are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "alexnet_jax" / "programs"


def _keep_programs(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written costs time, not the run
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    _heal(folder)


def _heal(folder: Path) -> None:
    """Has a damaged entry removed when JAX fails to read it.

    JAX writes its cache in place, warns about an entry that a kill cut short, and neither repairs
    nor removes it; it would warn at every start.
    """
    show = warnings.showwarning

    def remove_instead(message: Warning | str, *arguments: Any, **keywords: Any) -> None:
        match = _READ_FAILURE.search(str(message))
        if not match:
            show(message, *arguments, **keywords)
            return
        for entry in folder.glob(f"{match[1]}-*"):
            entry.unlink(missing_ok=True)

    warnings.showwarning = remove_instead
