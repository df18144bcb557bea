"""Every model against PyTorch's own layers: logits and all gradients."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")
F = torch.nn.functional

from cases import OPTIMIZED, Case, make_case, ours, small_size  # noqa: E402
from torch_models import theirs  # noqa: E402

from alexnet_jax import ops  # noqa: E402
from alexnet_jax.models import variants  # noqa: E402

TOLERANCES = {"float32": 1e-4, "float64": 1e-9}

# Rounding in float32 moves a maximum or two of the 140,000 pooling windows at 224 pixels to a
# neighbor, and each changes the gradients below it by 1e-3 of their norm. So float32 gradients are
# compared on small images of a seed with which no pool or ReLU is near a tie.
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "models.json").read_text())


def compare(case: Case, dtype: str) -> None:
    with jax.enable_x64(dtype == "float64"):
        logits, gradients = ours(case)
    expected, peers, _ = theirs(case)
    assert_close(logits, expected, TOLERANCES[dtype], "logits")
    assert gradients.keys() == peers.keys()
    for layer, roles in peers.items():
        assert gradients[layer].keys() == roles.keys()
        for role, peer in roles.items():
            assert_close(gradients[layer][role], peer, TOLERANCES[dtype], f"{layer}/{role}")


def assert_close(ours: Any, theirs: np.ndarray, tolerance: float, what: str) -> None:
    """Equal within a tolerance relative to the array's norm."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape, what
    assert ours.dtype == theirs.dtype, what
    assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs), what


# One of each input geometry at its own size; the others on small images, as it is slow.
AT_FULL_SIZE = ("paper", "caffe", "torchvision")


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_model_in_float64(name: str) -> None:
    size = None if name in AT_FULL_SIZE else small_size(name)
    compare(make_case(name, 7, "float64", input_size=size), "float64")


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_gradients_in_float32(name: str) -> None:
    case = make_case(
        name, GOLDEN.get(name, {"seed": 0})["seed"], "float32", input_size=small_size(name)
    )
    compare(case, "float32")


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_logits_in_float32(name: str) -> None:
    case = make_case(name, 7, "float32")
    variables = {"params": case.params, "batch_stats": case.batch_stats}
    logits = jax.jit(case.model.apply, compiler_options=OPTIMIZED)(variables, case.images)
    assert_close(logits, theirs(case)[0], TOLERANCES["float32"], "logits")


OVERRIDES: list[tuple[str, dict[str, Any]]] = [
    ("paper", {"lrn": "none"}),
    ("paper", {"lrn": "all"}),
    ("paper", {"pooling": "non_overlapping"}),
    ("paper", {"activation": "tanh"}),
    ("paper", {"activation": "sigmoid"}),
    ("paper", {"activation": "abs_tanh"}),
    ("paper", {"remove_layer": "conv1"}),
    ("paper", {"remove_layer": "conv2"}),
    ("paper", {"remove_layer": "conv4"}),
    ("paper", {"dropout": 0.0}),
    (
        "paper",
        {"layers": {"conv2": {"features": 96, "groups": 1}, "norm1": {"k": 1.0, "beta": 0.6}}},
    ),
    ("batchnorm", {"remove_layer": "conv3"}),
]


@pytest.mark.parametrize(("name", "overrides"), OVERRIDES)
def test_overrides_in_float64(name: str, overrides: dict[str, Any]) -> None:
    compare(make_case(name, 7, "float64", input_size=small_size(name), **overrides), "float64")


@pytest.mark.parametrize("name", ["paper", "no_communication", "torchvision", "caffe"])
def test_fully_convolutional_model_on_a_larger_image(name: str) -> None:
    narrow = {"conv1": 24, "conv2": 64, "conv3": 96, "conv4": 96, "conv5": 64, "fc6": 64, "fc7": 32}
    layers = {layer: {"features": features} for layer, features in narrow.items()}
    case = make_case(name, 7, "float64", layers=layers, fully_convolutional=True, input_size=290)
    compare(case, "float64")


def test_batch_norm_in_training() -> None:
    """Output, gradients and running means use the batch; PyTorch's running variance is unbiased."""
    with jax.enable_x64(True):
        case = make_case("batchnorm", 7, "float64", input_size=small_size("batchnorm"))

        def objective(params: Any) -> Any:
            variables = {"params": params, "batch_stats": case.batch_stats}
            logits, updated = case.model.apply(
                variables, case.images, train=True, mutable=["batch_stats"]
            )
            return jnp.sum(logits * case.weights), (logits, updated["batch_stats"])

        gradient = jax.jit(jax.grad(objective, has_aux=True), compiler_options=OPTIMIZED)
        gradients, (logits, stats) = gradient(case.params)
    expected, peers, running = theirs(case, train=True)
    # with two examples, batch norm of a dense layer gives +-1, and no gradient passes below
    assert_close(logits, expected, 1e-6, "logits")
    for role in ("scale", "bias"):
        assert_close(gradients["fc8_norm"][role], peers["fc8_norm"][role], 1e-6, role)
    for layer, (mean, variance) in running.items():
        assert_close(stats[layer]["mean"], mean.numpy(), 1e-9, layer)
        positions = {"conv1": 23**2, "conv2": 11**2}.get(layer.removesuffix("_norm"))
        if positions:
            before = 0.9 * case.batch_stats[layer]["var"]
            of_batch = (variance.numpy() - before) * (1 - 1 / (positions * len(case.images)))
            assert_close(stats[layer]["var"], before + of_batch, 1e-9, layer)


@pytest.mark.parametrize("pixels", [63, 128, 300])
def test_torchvision_at_other_sizes(pixels: int) -> None:
    compare(make_case("torchvision", 7, "float64", input_size=pixels), "float64")


@pytest.mark.parametrize("channels", [3, 5, 96])
@pytest.mark.parametrize("size", [3, 4, 5])
def test_local_response_norm(channels: int, size: int) -> None:
    x = np.random.default_rng(0).normal(0, 40, (2, 3, 4, channels)).astype(np.float32)
    alpha = ops.alpha_of_sum(1e-4, size, "torch")
    ours = ops.local_response_norm(jnp.asarray(x), size, 2.0, alpha)
    theirs = torch.nn.LocalResponseNorm(size, alpha=1e-4, beta=0.75, k=2.0)(
        torch.tensor(x.transpose(0, 3, 1, 2))
    )
    np.testing.assert_allclose(ours, theirs.numpy().transpose(0, 2, 3, 1), rtol=1e-5)


def test_max_pool_resolves_ties_to_the_same_element() -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 9, 9, 4)).astype(np.float32)
    peer = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    pooled = F.max_pool2d(peer, 3, 2)
    weights = np.random.default_rng(1).normal(size=pooled.shape).astype(np.float32)
    (pooled * torch.tensor(weights)).sum().backward()
    ours = jax.grad(lambda x: jnp.sum(ops.max_pool(x, 3, 2) * weights.transpose(0, 2, 3, 1)))(
        jnp.asarray(x)
    )
    np.testing.assert_allclose(ours, peer.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)
