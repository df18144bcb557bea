"""The gradient of each strategy to the last digits, in float64, for every exchange of features."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.models import AlexNet, create_model, layers, parameter_shapes
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.parallel.mesh import make_layout, put_batch
from alexnet_jax.preprocessing.color import ColorNoise
from alexnet_jax.training.metrics import Metrics
from alexnet_jax.training.step import make_gradient, make_loss

STRATEGIES = [
    *(("data", 2), ("data", 4), ("tower", 2), ("tower", 4)),
    *(("hybrid", 2), ("hybrid", 4), ("stage", 2), ("stage", 4)),
]
CLASSES = 7


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def flat(tree: Any) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(array)
        for path, array in jax.tree_util.tree_leaves_with_path(tree)
    }


def changed(spec: ModelSpec, kind: str) -> ModelSpec:
    """The tiny model; with LRN over both towers; dropout before fc4; or other norms, or all."""
    norms: dict[str, Callable[[str], layers.Layer]] = {
        "group norm": lambda name: layers.GroupNorm(name, groups=4),
        "group norm over both towers": lambda name: layers.GroupNorm(name, groups=1),
        "layer norm": layers.LayerNorm,
        "batch norm": layers.BatchNorm,
    }
    if kind == "every norm":
        spec = changed(spec, "norm over both towers")
        at = spec.first_dense
        added = (layers.BatchNorm("batch_norm"), layers.GroupNorm("conv3_norm", groups=4))
        return dataclasses.replace(spec, layers=(*spec.layers[:at], *added, *spec.layers[at:]))
    rows = []
    for layer in spec.layers:
        if kind in norms and layer.name in ("norm1", "fc4"):
            rows += [layer] if layer.name == "fc4" else []
            layer = norms[kind](f"{layer.name.replace('norm', 'conv')}_norm")
        if kind == "norm over both towers" and isinstance(layer, layers.LocalResponseNorm):
            layer = dataclasses.replace(layer, groups=1, size=6)
        if kind == "early dropout" and getattr(layer, "name", "") == "fc4":
            rows.append(layers.Dropout("drop3", inverted=True))
        rows.append(layer)
    return dataclasses.replace(spec, layers=tuple(rows))


@pytest.fixture(scope="module")
def gradient(tiny_experiment: Any, tiny_state: Any, tiny_batch: Any, tiny_spec: Any) -> Any:
    """Returns (kind, strategy, devices, options) -> (loss, metrics, gradients and statistics)."""

    @functools.cache
    def compute(
        kind: str,
        strategy: str = "single",
        devices: int = 1,
        accumulate: int = 1,
        wide: bool = True,
    ) -> tuple[float, Metrics, dict[str, np.ndarray]]:
        with jax.enable_x64(wide):
            layout = make_layout(strategy, devices, micro_batches=2)
            model = AlexNet(changed(tiny_spec, kind), CLASSES)
            augmentation = dataclasses.replace(
                tiny_experiment().augmentation,
                color=ColorNoise("code", std=0.1, until=None),
                crop_group_size=4,
            )
            state = jax.device_get(dataclasses.replace(tiny_state(), key=None))
            added = {  # parameters and statistics of norms
                layer: {name: np.linspace(0.5, 1.5, x.shape[-1]) for name, x in arrays.items()}
                for layer, arrays in parameter_shapes(model.spec).items()
                if layer not in state.params
            }
            state = dataclasses.replace(
                state,
                params={**state.params, **added},
                batch_stats={
                    layer: {"mean": arrays["bias"], "var": arrays["scale"]}
                    for layer, arrays in added.items()
                    if kind == "batch norm" or layer == "batch_norm"
                },
            )
            spread = {
                "pca_components": np.ones((1, 1), np.float32),
                "pca_std": np.full(1, 50, np.float32),
            }
            state = dataclasses.replace(state, statistics={**state.statistics, **spread})
            if wide:
                state = jax.tree.map(
                    lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, state
                )
            state = dataclasses.replace(state, key=jax.random.key(3))
            gradient_of = make_gradient(make_loss(model, augmentation, layout), layout, accumulate)
            batch = tiny_batch(5)._replace(mask=np.arange(16) % 5 != 0)
            batch = batch._replace(mask=batch.mask.astype(np.float32))
            step = jax.jit(gradient_of)
            loss, metrics, statistics, gradients = step(state, put_batch(batch, layout.mesh))
            gradients = {**gradients, "batch_stats": statistics}
            return float(loss), jax.device_get(metrics), flat(gradients)

    return compute


@pytest.mark.parametrize(
    ("kind", "strategy", "devices"),
    [
        *(("tiny", strategy, 2) for strategy in ("tower", "hybrid", "stage")),
        ("every norm", "tower", 4),
        slow("tiny", "data", 2),
        *(slow("tiny", *case) for case in STRATEGIES if case[1] == 4),
        slow("norm over both towers", "tower", 2),
        slow("norm over both towers", "tower", 4),
        slow("early dropout", "tower", 2),
        slow("early dropout", "hybrid", 2),
        slow("early dropout", "hybrid", 4),
        slow("batch norm", "data", 2),
        slow("batch norm", "tower", 4),
        slow("batch norm", "hybrid", 2),
        slow("group norm", "tower", 2),
        slow("group norm", "hybrid", 4),
        slow("group norm", "stage", 2),
        slow("group norm over both towers", "tower", 2),
        *(slow("layer norm", *case) for case in (("tower", 4), ("hybrid", 2))),
    ],
)
def test_in_float64(kind: str, strategy: str, devices: int, gradient: Any) -> None:
    loss, metrics, gradients = gradient(kind, strategy, devices)
    expected_loss, expected_metrics, expected = gradient(kind)
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert metrics.means() == pytest.approx(expected_metrics.means(), rel=1e-12)
    assert gradients.keys() == expected.keys()
    for name, array in expected.items():
        assert gradients[name].dtype == np.float64
        rounding = 1e-14  # of a bias before batch norm, whose gradient is 0
        difference = np.linalg.norm(gradients[name] - array)
        assert difference <= 1e-10 * np.linalg.norm(array) + rounding, name


@pytest.mark.parametrize(
    ("strategy", "devices"),
    [
        ("tower", 2),
        *(slow(*case) for case in (("single", 1), ("data", 2), ("hybrid", 2), ("stage", 2))),
    ],
)
def test_accumulated_over_parts_of_a_batch(strategy: str, devices: int, gradient: Any) -> None:
    """The parts have different numbers of readable examples: it is not a mean of means."""
    loss, metrics, gradients = gradient("tiny", strategy, devices, accumulate=4)
    expected_loss, expected_metrics, expected = gradient("tiny")
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert metrics.means() == pytest.approx(expected_metrics.means(), rel=1e-12)
    for name, array in expected.items():
        assert np.linalg.norm(gradients[name] - array) <= 1e-10 * np.linalg.norm(array), name


@pytest.mark.slow
def test_accumulated_in_float32(gradient: Any) -> None:
    _, _, gradients = gradient("tiny", accumulate=4, wide=False)
    _, _, expected = gradient("tiny", wide=False)
    for name, array in expected.items():
        assert np.linalg.norm(gradients[name] - array) <= 1e-6 * np.linalg.norm(array), name


def cosine(some: np.ndarray, others: np.ndarray) -> float:
    return float(np.vdot(some, others) / np.linalg.norm(some) / np.linalg.norm(others))


SMALL = {"fc6": {"features": 64}, "fc7": {"features": 64}}
AVERAGES = {f"pool{number}": {"kind": "average"} for number in (1, 2, 5)}
SMOOTH = {"activation": "tanh", "layers": {**SMALL, **AVERAGES}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        pytest.param(SMOOTH, 0.999, id="smooth"),
        pytest.param({"layers": SMALL}, 0.95, id="paper"),
    ],
)
def test_bfloat16_points_the_same_way(overrides: dict[str, Any], least: float) -> None:
    """In the paper's model other maxima of pools and signs at ReLUs cost more than rounding."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(0, 60, (16, 12, 12, 3)).astype(np.float32)
    images = jax.image.resize(coarse, (16, 96, 96, 3), "cubic")
    labels = rng.integers(0, 10, 16)

    def gradients(params: Any, dtype: str | None) -> Any:
        model = create_model("paper", 10, input_size=96, dtype=dtype, **overrides)
        if params is None:
            return model.init(jax.random.key(0), images)["params"]

        def loss(params: Any) -> jax.Array:
            keys = jax.random.split(jax.random.key(1), 16)
            logits: Any = model.apply({"params": params}, images, train=True, dropout_keys=keys)
            return -jax.nn.log_softmax(logits)[np.arange(16), labels].mean()

        return jax.grad(loss)(params)

    compute = jax.jit(gradients, static_argnums=1)
    params = compute(None, None)
    bfloat16, float32 = flat(compute(params, "bfloat16")), flat(compute(params, None))
    for name, array in float32.items():
        assert bfloat16[name].dtype == np.float32
        assert least <= cosine(bfloat16[name], array) < 1 - 1e-9, name
        # sums in bfloat16 stop growing where the sum is large relative to its terms
        assert np.linalg.norm(bfloat16[name]) == pytest.approx(np.linalg.norm(array), rel=0.05), (
            name
        )


def test_the_papers_model_in_bfloat16() -> None:
    """Parameters and logits stay float32; every activation is bfloat16."""
    model = create_model("paper", 10, dtype="bfloat16", input_size=96, layers=SMALL)
    images = jax.ShapeDtypeStruct((2, 96, 96, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    logits, sown = jax.eval_shape(
        lambda *inputs: model.apply(*inputs, mutable="intermediates"), variables, images
    )
    assert logits.dtype == jnp.float32
    kinds = {x.dtype for x in jax.tree.leaves(sown)}
    assert kinds == {jnp.dtype("bfloat16")}
