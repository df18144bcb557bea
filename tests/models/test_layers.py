"""Norms by mean and variance, against their formulas in float64."""

from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax.models import AlexNet, layers

RNG = np.random.default_rng(0)
SCALE, BIAS = RNG.normal(1, 0.5, 12), RNG.normal(0, 1, 12)


def normalized(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


def group_norm(x: np.ndarray, groups: int, epsilon: float) -> np.ndarray:
    parts = [
        normalized(part, tuple(range(1, x.ndim)), epsilon) for part in np.split(x, groups, axis=-1)
    ]
    return np.concatenate(parts, axis=-1) * SCALE + BIAS


def run(layer: layers.Layer, x: np.ndarray, **variables: Any) -> np.ndarray:
    model = AlexNet(layers.ModelSpec(4, 12, (layer,)), 2)
    params = {layer.name: {"scale": SCALE, "bias": BIAS}}
    with jax.enable_x64(True):
        apply = jax.jit(lambda variables, x: model.apply(variables, x, heat_map=True))
        return np.asarray(apply({"params": params, **variables}, x))


@pytest.mark.parametrize("shape", [(3, 4, 4, 12), (3, 12)])
def test_norms(shape: tuple[int, ...]) -> None:
    x = RNG.normal(5, 30, shape)
    for groups in (1, 3, 4):
        found = run(layers.GroupNorm("norm", epsilon=0.1, groups=groups), x)
        np.testing.assert_allclose(found, group_norm(x, groups, 0.1), rtol=1e-9, atol=1e-9)
    found = run(layers.LayerNorm("norm", epsilon=0.1), x)
    expected = normalized(x, (-1,), 0.1) * SCALE + BIAS
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    mean, variance = RNG.normal(size=12), RNG.uniform(0.5, 2, 12)
    stats = {"batch_stats": {"norm": {"mean": mean, "var": variance}}}
    found = run(layers.BatchNorm("norm", epsilon=0.1), x, **stats)
    expected = (x - mean) / np.sqrt(variance + 0.1) * SCALE + BIAS
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_groups_divide_the_channels() -> None:
    spec = layers.ModelSpec(4, 12, (layers.GroupNorm("norm", groups=5),))
    with pytest.raises(ValueError, match=r"layers\.norm: "):
        list(spec.trace())


@pytest.mark.parametrize(
    ("layer", "count", "refused"),
    [
        (layers.Conv("x", 8, 3, groups=2), 2, False),
        (layers.Conv("x", 9, 3), 2, True),
        (layers.Conv("x", 9, 3, groups=3), 2, True),
        (layers.Conv("x", 8, 3, groups=2), 4, True),
        (layers.Dense("x", 9), 2, False),  # every device has all of it
        (layers.LocalResponseNorm("x", size=13), 2, False),
        (layers.LocalResponseNorm("x", size=14), 2, True),
        (layers.GroupNorm("x", groups=1), 2, False),
        (layers.GroupNorm("x", groups=4), 2, False),
        (layers.GroupNorm("x", groups=3), 2, True),
        (layers.LayerNorm("x"), 2, False),
    ],
)
def test_layers_whose_features_devices_cannot_share(
    layer: layers.Layer, count: int, refused: bool
) -> None:
    assert bool(layer.sharding_error(features=12, count=count)) == refused
