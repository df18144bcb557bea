"""The forward pass against a slow float64 implementation, and dropout."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import AlexNet, create_model, variants
from alexnet_jax.models.layers import Dropout, ModelSpec

RNG = np.random.default_rng(0)

# ---- A forward pass by loops, from the paper and configuration 145, independent of variants.py.


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def conv(x: np.ndarray, weights: dict, pads: tuple, stride: int = 1, groups: int = 1) -> np.ndarray:
    kernel, bias = (np.asarray(weights[name], np.float64) for name in ("kernel", "bias"))
    x = np.pad(x, ((0, 0), pads, pads, (0, 0)))
    size, inputs, outputs = kernel.shape[0], kernel.shape[2], kernel.shape[3] // groups
    side = (x.shape[1] - size) // stride + 1
    result = np.empty((len(x), side, side, kernel.shape[3]))
    for i, j, group in np.ndindex(side, side, groups):
        top, left = i * stride, j * stride
        patch = x[:, top : top + size, left : left + size, group * inputs : (group + 1) * inputs]
        part = slice(group * outputs, (group + 1) * outputs)
        result[:, i, j, part] = np.einsum("bhwi,hwio->bo", patch, kernel[..., part])
    return result + bias


def response_norm(x: np.ndarray, alpha: float) -> np.ndarray:
    """k = 2, five neighbors, within each half of the channels."""
    half, result = x.shape[-1] // 2, np.empty_like(x)
    for c in range(x.shape[-1]):
        tower = c // half * half
        window = range(max(c - 2, tower), min(c + 3, tower + half))
        result[..., c] = x[..., c] / (2 + alpha * sum(x[..., w] ** 2 for w in window)) ** 0.75
    return result


def within_channel_norm(x: np.ndarray) -> np.ndarray:
    result = np.empty_like(x)
    for i, j in np.ndindex(x.shape[1:3]):
        window = x[:, max(i - 2, 0) : i + 3, max(j - 2, 0) : j + 3]
        result[:, i, j] = x[:, i, j] / (1 + 1e-3 / 25 * (window**2).sum((1, 2))) ** 0.75
    return result


def pool(x: np.ndarray) -> np.ndarray:
    side = (x.shape[1] - 3) // 2 + 1
    result = np.empty((len(x), side, side, x.shape[-1]))
    for i, j in np.ndindex(side, side):
        result[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((1, 2))
    return result


def dense(x: np.ndarray, weights: dict) -> np.ndarray:
    return x.reshape(len(x), -1) @ np.asarray(weights["kernel"], np.float64) + weights["bias"]


def forward(
    p: dict, x: np.ndarray, *, pads: tuple, stride: int, within_channel: bool, text: bool = False
) -> np.ndarray:
    alpha = 1e-4 if text else 2e-5
    x = conv(x.astype(np.float64), p["conv1"], pads, stride)
    x = pool(response_norm(relu(x), alpha)) if text else relu(pool(response_norm(x, alpha)))
    x = response_norm(relu(conv(x, p["conv2"], (2, 2), groups=2)), alpha)
    x = pool(within_channel_norm(x) if within_channel else x)
    x = relu(conv(x, p["conv3"], (1, 1)))
    x = relu(conv(x, p["conv4"], (1, 1), groups=2))
    x = pool(relu(conv(x, p["conv5"], (1, 1), groups=2)))
    x = 0.5 * relu(dense(x, p["fc6"]))
    x = 0.5 * relu(dense(x, p["fc7"]))
    return dense(x, p["fc8"])


# ---- The models, small enough for loops; order, geometry and constants stay.

FORWARDS = {
    "paper": {"pads": (0, 3), "stride": 4, "within_channel": True},
    "paper_text": {"pads": (0, 3), "stride": 4, "within_channel": False, "text": True},
    "digits": {"pads": (2, 2), "stride": 1, "within_channel": False},
}


def shrunk(name: str) -> AlexNet:
    spec = variants.VARIANTS[name]
    divisor = 1 if name == "digits" else 8
    fields = {
        layer.name: {"features": features // divisor}
        for layer in spec.layers
        if (features := getattr(layer, "features", None))
    }
    # 80 pixels: as at 224, the last window covers all three zeros at right and bottom
    return create_model(name, 7, layers=fields, input_size=24 if name == "digits" else 80)


def random_params(model: AlexNet) -> dict:
    """Weights that keep the signal's size, and biases as large as it."""
    size, channels = model.spec.input_size, model.spec.channels
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def draw(path: Any, shape: jax.ShapeDtypeStruct) -> np.ndarray:
        is_bias = path[-1].key == "bias"
        std = 20.0 if is_bias else np.sqrt(2 / np.prod(shape.shape[:-1]))
        return RNG.normal(0, std, shape.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Case(NamedTuple):
    name: str
    params: dict
    images: np.ndarray
    apply: Callable[[dict, np.ndarray], tuple[jax.Array, dict]]  # with all named layers' outputs


@pytest.fixture(scope="module", params=list(FORWARDS))
def case(request: pytest.FixtureRequest) -> Case:
    model = shrunk(request.param)
    size, channels = model.spec.input_size, model.spec.channels
    images = RNG.uniform(-128, 127, (3, size, size, channels)).astype(np.float32)

    @jax.jit
    def apply(params: dict, images: jax.Array) -> Any:
        return model.apply({"params": params}, images, mutable="intermediates")

    return Case(request.param, random_params(model), images, apply)


def distance(some: np.ndarray, others: np.ndarray) -> float:
    return float(np.abs(some - others).max() / np.abs(others).max())


def test_logits_are_those_of_loops(case: Case) -> None:
    logits, _ = case.apply(case.params, case.images)
    assert logits.shape == (3, 7)
    assert distance(logits, forward(case.params, case.images, **FORWARDS[case.name])) < 2e-5


def test_comparison_distinguishes_the_papers_text_from_its_code(case: Case) -> None:
    """Order and constants of the norms change the logits by more than the tolerance."""
    logits, _ = case.apply(case.params, case.images)
    own = FORWARDS[case.name]
    other_order = own | {"text": case.name != "paper_text"}
    assert distance(logits, forward(case.params, case.images, **other_order)) > 1e-2
    other_norms = own | {"within_channel": not own["within_channel"]}
    assert distance(logits, forward(case.params, case.images, **other_norms)) > 1e-3


def test_the_halves_of_a_grouped_kernel_are_the_towers(case: Case) -> None:
    """A grouped layer does not depend on the other half of the channels."""
    changed = jax.tree.map(np.copy, case.params)
    half = changed["conv1"]["bias"].size // 2
    changed["conv1"]["kernel"][..., half:] = RNG.normal(size=changed["conv1"]["kernel"].shape)[
        ..., half:
    ]
    (_, before), (_, after) = case.apply(case.params, case.images), case.apply(changed, case.images)
    for layer, reached in {"conv2": False, "conv3": True}.items():
        maps, others = (
            np.asarray(sown["intermediates"][f"{layer}_output"][0]) for sown in (before, after)
        )
        half = maps.shape[-1] // 2
        assert np.array_equal(maps[..., :half], others[..., :half]) != reached
        assert not np.array_equal(maps[..., half:], others[..., half:])


# ---- Dropout


def dropout_model(inverted: bool, *rates: float) -> AlexNet:
    dropouts = (Dropout(f"drop{at}", rate, inverted) for at, rate in enumerate(rates))
    return AlexNet(ModelSpec(1, 1024, tuple(dropouts)), 2)


def drop(model: AlexNet, x: np.ndarray, keys: jax.Array) -> np.ndarray:
    apply = jax.jit(lambda x, keys: model.apply({}, x, train=True, dropout_keys=keys))
    return np.asarray(apply(x, keys))


KEYS = jax.random.split(jax.random.key(0), 20)
X = RNG.uniform(1, 2, (20, 1024)).astype(np.float32)


@pytest.mark.parametrize(("inverted", "kept", "at_test"), [(False, 1, 0.75), (True, 4 / 3, 1)])
def test_dropout_keeps_the_mean_at_test_or_in_training(
    inverted: bool, kept: float, at_test: float
) -> None:
    model = dropout_model(inverted, 0.25)
    dropped = drop(model, X, KEYS)
    mask = dropped != 0
    np.testing.assert_allclose(dropped[mask], X[mask] * kept, rtol=1e-6)
    assert mask.mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.25 * 0.75 / mask.size))
    np.testing.assert_allclose(model.apply({}, X), X * at_test, rtol=1e-6)


def test_a_mask_depends_only_on_the_key_of_its_example() -> None:
    model = dropout_model(False, 0.5)
    whole = drop(model, X, KEYS)
    order = np.array([7, 3, 19])
    np.testing.assert_array_equal(drop(model, X[order], KEYS[order]), whole[order])
    masks = {row.tobytes() for row in whole != 0}
    assert len(masks) == len(X)


def test_two_dropout_layers_draw_independently() -> None:
    model = dropout_model(False, 0.5, 0.5)
    mask = drop(model, X, KEYS) != 0
    assert mask.mean() == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / mask.size))


def test_dropout_keys_default_to_those_of_flax() -> None:
    model = dropout_model(False, 0.5)
    apply = jax.jit(lambda key: model.apply({}, X, train=True, rngs={"dropout": key}))
    some, same, other = (np.asarray(apply(KEYS[at])) != 0 for at in (0, 0, 1))
    np.testing.assert_array_equal(some, same)
    assert (some != other).mean() == pytest.approx(0.5, abs=0.02)
    assert len({row.tobytes() for row in some}) == len(X)


def test_dropout_without_keys_is_an_error() -> None:
    with pytest.raises(ValueError, match="drop0"):
        dropout_model(False, 0.5).apply({}, X, train=True)
