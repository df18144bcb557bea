"""The minimum time of a compiled step on devices that are not available: a roofline estimate.

The devices are those of data sheets, or this CPU, whose performance is measured in a few seconds.
"""

import os
import statistics
import timeit
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from alexnet_jax.ops import convolution
from alexnet_jax.parallel.collective_bytes import collectives

GIB = 2.0**30


class Device(NamedTuple):
    """The performance of one device.

    Attributes:
      name: for display.
      flops: floating-point operations per second, by dtype of the computation.
      bandwidth: bytes per second from and to its memory.
      link: bytes per second that it sends to other devices.
      memory: bytes.
      overlaps: whether it moves memory while it computes.
    """

    name: str
    flops: Mapping[str, float]
    bandwidth: float
    link: float
    memory: float
    overlaps: bool = True


# Dense peaks of the makers' data sheets. JAX computes float32 matrix products in TF32 on these GPUs
# and in bfloat16 on TPUs, unless jax_default_matmul_precision says otherwise. Links count one
# direction: NVLink 3 and 4, and the four ICI links of a chip.
DEVICES = {
    "h100": Device(
        "NVIDIA H100 SXM", {"float32": 494e12, "bfloat16": 989e12}, 3.35e12, 450e9, 80e9
    ),
    "a100": Device(
        "NVIDIA A100 SXM 80 GB", {"float32": 156e12, "bfloat16": 312e12}, 2.04e12, 300e9, 80e9
    ),
    "tpu_v5e": Device(
        "Google TPU v5e", {"float32": 197e12, "bfloat16": 197e12}, 819e9, 200e9, 16e9
    ),
}


class Work(NamedTuple):
    """What a step requires of each device.

    Attributes:
      flops: floating-point operations.
      memory_bytes_moved: read from and written to memory.
      bytes_sent: to other devices.
      memory_bytes: held at once.
    """

    flops: float
    memory_bytes_moved: float
    bytes_sent: float
    memory_bytes: float


def work_of(program: jax.stages.Compiled) -> Work:
    """Returns what a compiled program requires of each device, by the compiler's own analyses.

    They count the body of a loop once: see `Layout.unrolled`.
    """
    cost: Any = program.cost_analysis()
    memory: Any = program.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    sent = sum((kind.sent for kind in collectives(program.as_text() or "").values()), 0.0)
    return Work(cost["flops"], cost["bytes accessed"], sent, held - memory.alias_size_in_bytes)


def estimate(work: Work, device: Device, dtype: str) -> dict[str, float]:
    """Returns the roofline of a step: the minimum time that the device's rates allow.

    Args:
      work: what the step requires.
      device: a value of DEVICES, or this CPU.
      dtype: of the computation, a key of `device.flops`.

    Returns:
      Seconds for "arithmetic", "memory" and "links", and for the whole "step".
    """
    arithmetic, links = work.flops / device.flops[dtype], work.bytes_sent / device.link
    memory = work.memory_bytes_moved / device.bandwidth
    local = max(arithmetic, memory) if device.overlaps else arithmetic + memory
    return {"arithmetic": arithmetic, "memory": memory, "links": links, "step": local + links}


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
