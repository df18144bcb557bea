"""Every net against PyTorch, built here from stock layers: logits and all gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the parity extra: make parity")
F = torch.nn.functional

from alexnet_jax import ops  # noqa: E402
from alexnet_jax.models import create_model, variants  # noqa: E402

BATCH, CLASSES = 2, 7


def spatial_norm(x: Any, layer: variants.SpatialNorm) -> Any:
    """Response normalisation within a map, by a mean over windows that counts the padding."""
    mean = F.avg_pool2d(x * x, layer.size, stride=1, padding=layer.size // 2)
    return x / (layer.k + layer.alpha * layer.size**2 * mean) ** 0.75


def forward(
    network: variants.Network, params: dict[str, Any], x: Any, margins: list[float] | None = None
) -> Any:
    """Runs a row with PyTorch's own layers at test time; x and kernels in PyTorch's layout."""
    for layer in network.layers:
        if margins is not None and isinstance(layer, variants.MaxPool | variants.Relu):
            margins.append(margin(x, layer))
        match layer:
            case variants.Conv():
                (top, bottom), (left, right) = (
                    ((layer.padding,) * 2,) * 2 if isinstance(layer.padding, int) else layer.padding
                )
                x = F.pad(x, (left, right, top, bottom))
                x = F.conv2d(x, *params[layer.name], stride=layer.stride, groups=layer.groups)
            case variants.Dense():
                # our inputs are flattened in HWC order
                x = x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x
                x = F.linear(x, *params[layer.name])
            case variants.ResponseNorm():
                norm = torch.nn.LocalResponseNorm(
                    layer.size, alpha=layer.alpha * layer.size, beta=0.75, k=layer.k
                )
                x = torch.cat([norm(part) for part in x.chunk(layer.groups, dim=1)], dim=1)
            case variants.SpatialNorm():
                x = spatial_norm(x, layer)
            case variants.MaxPool():
                x = F.max_pool2d(x, layer.window, layer.stride)
            case variants.Relu():
                x = F.relu(x)
            case variants.Dropout():
                x = x * (1 - layer.rate) if layer.rescale == "test" else x
            case _:
                raise AssertionError(f"{layer} has no peer")
    return x


def random_params(model: Any, rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
    """Asymmetric weights that keep the signal's size, as numpy arrays in our layout."""
    size, channels = model.network.input_size, model.network.channels
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, size, size, channels)))
    return {
        name: {
            "kernel": rng.normal(
                0.01, 1 / np.sqrt(np.prod(arrays["kernel"].shape[:-1])), arrays["kernel"].shape
            ).astype(dtype),
            "bias": rng.normal(0.1, 0.3, arrays["bias"].shape).astype(dtype),
        }
        for name, arrays in shapes["params"].items()
    }


def to_torch(params: dict[str, Any]) -> dict[str, Any]:
    """The same weights in PyTorch's layout, wanting gradients."""
    axes = {4: (3, 2, 0, 1), 2: (1, 0)}
    return {
        name: [
            torch.tensor(
                np.ascontiguousarray(arrays["kernel"].transpose(axes[arrays["kernel"].ndim])),
                requires_grad=True,
            ),
            torch.tensor(arrays["bias"], requires_grad=True),
        ]
        for name, arrays in params.items()
    }


def back_to_ours(array: Any) -> np.ndarray:
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    return array.numpy().transpose(axes[array.ndim])


TOLERANCES = {"float32": 1e-4, "float64": 1e-9}

# Rounding in float32 moves a maximum or two of the 140,000 pooling windows at 224 pixels to a
# neighbour, and each changes the gradients below it by 1e-3 of their norm. So float32 is compared
# on smaller pictures, drawn from a seed of which no window or ReLU comes near to a tie.
SMALL = {224: 96, 24: 24}
SEEDS = {"paper": 17, "paper_text": 10, "digits": 5}
CLEAR = 3e-6  # of the root mean square


def margin(x: Any, layer: Any) -> float:
    """How far the closest decision of a layer is from the other way, over the rms of its input."""
    x = x.detach()
    if isinstance(layer, variants.Relu):
        distances = x.abs()
    else:
        windows = x.unfold(2, layer.window, layer.stride).unfold(3, layer.window, layer.stride)
        best, second = windows.flatten(4).topk(2, dim=-1).values.unbind(-1)
        distances = (best - second)[best != second]  # behind a ReLU, zeros pass nothing on
    return float(distances.min() / x.pow(2).mean().sqrt())


@pytest.mark.parametrize("name", variants.NETWORKS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_logits_and_gradients(name: str, dtype: str) -> None:
    tolerance, size = TOLERANCES[dtype], variants.NETWORKS[name].input_size
    side = SMALL[size] if dtype == "float32" else size
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(SEEDS[name])
        model = create_model(name, CLASSES, input_size=side)
        params = random_params(model, rng, dtype)
        size, channels = model.network.input_size, model.network.channels
        images = rng.uniform(-120, 130, (BATCH, size, size, channels)).astype(dtype)
        weights = rng.normal(size=(BATCH, CLASSES)).astype(dtype)

        def objective(params: Any, images: Any) -> Any:
            logits = model.apply({"params": params}, images)
            return jnp.sum(logits * weights), logits

        (_, logits), (gradients, image_gradient) = jax.jit(
            jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        )(params, images)

    peers = to_torch(params)
    x = torch.tensor(images.transpose(0, 3, 1, 2), requires_grad=True)
    margins: list[float] = []
    theirs = forward(model.network, peers, x, margins)
    assert dtype == "float64" or min(margins) > CLEAR
    (theirs * torch.tensor(weights)).sum().backward()

    assert_close(logits, theirs.detach().numpy(), tolerance)
    assert_close(image_gradient, x.grad.numpy().transpose(0, 2, 3, 1), tolerance)
    for layer, (kernel, bias) in peers.items():
        assert_close(gradients[layer]["kernel"], back_to_ours(kernel.grad), tolerance)
        assert_close(gradients[layer]["bias"], back_to_ours(bias.grad), tolerance)


def assert_close(ours: Any, theirs: np.ndarray, tolerance: float) -> None:
    """Equal within a tolerance relative to the array's norm."""
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs)


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


def test_max_pool_gives_ties_to_the_same_element() -> None:
    x = np.random.default_rng(0).integers(0, 2, (2, 9, 9, 4)).astype(np.float32)
    peer = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    pooled = F.max_pool2d(peer, 3, 2)
    weights = np.random.default_rng(1).normal(size=pooled.shape).astype(np.float32)
    (pooled * torch.tensor(weights)).sum().backward()
    ours = jax.grad(lambda x: jnp.sum(ops.max_pool(x, 3, 2) * weights.transpose(0, 2, 3, 1)))(
        jnp.asarray(x)
    )
    np.testing.assert_allclose(ours, peer.grad.numpy().transpose(0, 2, 3, 1), rtol=1e-6)
