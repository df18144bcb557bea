"""The performance of this CPU, measured in a few seconds, to compare with published devices."""

import os
import statistics
import timeit
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from alexnet_jax.ops import convolution
from alexnet_jax.parallel.estimate import Device


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
    """Returns floating-point operations per second, in the paper's conv4 of one tower."""
    images, kernel = jnp.ones((32, 13, 13, 192), dtype), jnp.ones((3, 3, 192, 192), dtype)

    def loss(images: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(convolution(images, kernel, padding=1)))

    step = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(images, kernel).compile()
    cost: Any = step.cost_analysis()
    return cost["flops"] / _seconds(lambda: step(images, kernel))


def _bandwidth() -> float:
    """Returns bytes per second, read and written in place: a step reuses its memory too."""
    held = [jnp.ones((2**26,), jnp.float32)]  # 256 MB, beyond any cache
    add = jax.jit(lambda array: array + 1, donate_argnums=0).lower(held[0]).compile()

    def run() -> jax.Array:
        held.append(add(held.pop()))
        return held[0]

    return 2 * held[0].nbytes / _seconds(run)


def _seconds(run: Callable[[], Any]) -> float:
    """Returns the median time of seven calls, after one to warm up."""
    times = timeit.repeat(lambda: jax.block_until_ready(run()), number=1, repeat=8)
    return statistics.median(times[1:])
