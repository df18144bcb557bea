"""The estimate of a step's time: the compiler's counts, and the arithmetic on them."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax.parallel.estimate import DEVICES, Device, Work, estimate, measure_cpu, work_of
from alexnet_jax.parallel.mesh import make_layout

SIDE = 256


def test_the_work_of_a_product() -> None:
    square = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)
    work = work_of(jax.jit(jnp.matmul).lower(square, square).compile())
    assert work.flops == pytest.approx(2 * SIDE**3, rel=0.01)
    assert work.memory_bytes_moved == 3 * 4 * SIDE**2
    assert work.memory_bytes >= 3 * 4 * SIDE**2
    assert work.bytes_sent == 0


def test_work_is_that_of_one_device() -> None:
    mesh = make_layout("data", 4).mesh
    rows = jax.ShapeDtypeStruct((4 * SIDE, SIDE), jnp.float32)

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=P("data"), out_specs=P())
    def product(rows: jax.Array) -> jax.Array:
        return jax.lax.psum(rows.T @ rows, "data")

    work = work_of(jax.jit(product).lower(rows).compile())
    assert work.flops == pytest.approx(2 * SIDE**3, rel=0.01)
    assert work.bytes_sent == 2 * 3 / 4 * 4 * SIDE**2


WORK = Work(flops=6e9, memory_bytes_moved=8e6, bytes_sent=5e5, memory_bytes=1.0)


@pytest.mark.parametrize(
    ("overlaps", "dtype", "arithmetic", "step"),
    [
        (True, "float32", 6.0, 8.0 + 0.5),
        (False, "float32", 6.0, 6.0 + 8.0 + 0.5),
        (True, "bfloat16", 3.0, 8.0 + 0.5),
        (False, "bfloat16", 3.0, 3.0 + 8.0 + 0.5),
    ],
)
def test_the_estimate(overlaps: bool, dtype: str, arithmetic: float, step: float) -> None:
    rates = {"float32": 1e9, "bfloat16": 2e9}
    device = Device("a device", rates, bandwidth=1e6, link=1e6, memory=1.0, overlaps=overlaps)
    times = estimate(WORK, device, dtype)
    assert times == {"arithmetic": arithmetic, "memory": 8.0, "links": 0.5, "step": step}


def test_emulated_devices_share_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet_jax.parallel.estimate._flops", lambda dtype: 8e9)
    monkeypatch.setattr("alexnet_jax.parallel.estimate._bandwidth", lambda: 4e9)
    part = measure_cpu(4)
    assert part.flops == {"float32": 2e9, "bfloat16": 2e9}
    assert (part.bandwidth, part.link, part.overlaps) == (1e9, 1e9, False)


@pytest.mark.slow
def test_this_cpu_is_measured() -> None:
    """A device that shares the machine with three others has a quarter of it."""
    whole, part = measure_cpu(1), measure_cpu(4)
    assert part.memory == whole.memory / 4
    for device in (whole, part):
        assert 1e8 < device.flops["float32"] < 1e14
        assert 1e8 < device.bandwidth < 1e13
    assert part.flops["float32"] < whole.flops["float32"] / 2


@pytest.mark.parametrize("device", DEVICES.values(), ids=list(DEVICES))
def test_every_device_computes_in_both_types(device: Device) -> None:
    assert device.flops.keys() == {"float32", "bfloat16"}
    assert device.flops["bfloat16"] >= device.flops["float32"]
    assert device.overlaps
