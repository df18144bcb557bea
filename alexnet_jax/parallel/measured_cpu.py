"""The performance of this CPU, measured in a few seconds, to compare with published devices."""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.ops import convolution
from alexnet_jax.parallel.estimate import Device

_BATCH, _SIDE, _CHANNELS, _KERNEL = 32, 13, 192, 3  # as the paper's conv4 in one tower
_COPIED = 2**26  # numbers: 256 MB, beyond any cache


def measure_cpu(parts: int) -> Device:
    """Returns the performance of one of `parts` emulated devices while all are busy.

    Arithmetic is that of a convolution and its two gradients, bandwidth that of adding a number to
    a large array in place. The parts share the cores, the memory and its bandwidth.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    flops = {name: _flops(name) / parts for name in ("float32", "bfloat16")}
    bandwidth = _bandwidth() / parts
    name = f"this CPU, {os.cpu_count()} cores"
    return Device(name, flops, bandwidth, bandwidth, memory / parts, overlaps=False)


def _flops(dtype: str) -> float:
    """Returns floating-point operations per second."""
    images = jnp.ones((_BATCH, _SIDE, _SIDE, _CHANNELS), dtype)
    kernel = jnp.ones((_KERNEL, _KERNEL, _CHANNELS, _CHANNELS), dtype)

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(convolution(images, kernel, padding=1)))

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(images, kernel).compile()
    cost: Any = step.cost_analysis()
    return cost["flops"] / _seconds(lambda: step(images, kernel))


def _bandwidth() -> float:
    """Returns bytes per second, read and written in place: a step reuses its memory too."""
    held = [jnp.ones((_COPIED,), jnp.float32)]
    add = jax.jit(lambda array: array + 1, donate_argnums=0).lower(held[0]).compile()

    def run() -> jax.Array:
        held.append(add(held.pop()))
        return held[0]

    return 2 * held[0].nbytes / _seconds(run)


def _seconds(run: Callable[[], Any], rounds: int = 7) -> float:
    """Returns the median time of a call."""
    jax.block_until_ready(run())
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return statistics.median(times)
