"""Every model of the family run by PyTorch's own layers; it needs the parity extra."""

from typing import Any

import numpy as np
import torch
from cases import Case
from torch.nn import functional as F

from alexnet_jax.models import layers

ACTIVATIONS = {
    "relu": F.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "abs_tanh": lambda x: torch.tanh(x).abs(),
}


def convolution(x: Any, layer: layers.Conv, kernel: Any, bias: Any) -> Any:
    """A convolution, with `ceil_mode` with cuda-convnet's zeros past the right and bottom edge."""
    ends = []
    for side in (x.shape[3], x.shape[2]):
        whole = side + 2 * layer.padding - layer.kernel_size
        steps = -(-whole // layer.stride) if layer.ceil_mode else whole // layer.stride
        ends.append(max(steps * layer.stride - whole, 0))
    x = F.pad(x, (0, ends[0], 0, ends[1])) if any(ends) else x
    # the order of the two paddings does not matter
    return F.conv2d(x, kernel, bias, layer.stride, layer.padding, groups=layer.groups)


def locally_connected(x: Any, layer: layers.LocallyConnected, kernel: Any, bias: Any) -> Any:
    """A weight matrix at each position, applied to windows from `unfold`."""
    batch, channels, height, width = x.shape
    windows = F.unfold(
        x, layer.kernel_size, padding=layer.kernel_size // 2
    )  # (batch, C * size^2, positions)
    windows = windows.reshape(batch, channels, layer.kernel_size**2, height, width)
    kernel = kernel.reshape(height, width, layer.kernel_size**2, channels, layer.features)
    return torch.einsum("bcshw,hwsco->bohw", windows, kernel) + bias.permute(2, 0, 1)


def within_channel_norm(x: Any, layer: layers.WithinChannelResponseNorm) -> Any:
    """Response normalization within a channel, by a mean over windows that includes padding."""
    mean = F.avg_pool2d(x * x, layer.size, stride=1, padding=layer.size // 2)
    return x / (layer.k + layer.alpha * layer.size**2 * mean) ** layer.beta


def dense(x: Any, layer: layers.Dense, kernel: Any, bias: Any) -> Any:
    """A fully connected layer; its inputs are flattened in HWC order, each group separately."""
    parts = x.chunk(layer.groups, dim=1)
    columns = kernel.chunk(layer.groups, dim=0)
    if layer.input_spatial_size and x.ndim == 4:  # at each position, as a convolution
        side = layer.input_spatial_size
        outputs = [
            F.conv2d(part, rows.reshape(len(rows), side, side, -1).permute(0, 3, 1, 2))
            for part, rows in zip(parts, columns, strict=True)
        ]
        return torch.cat(outputs, 1) + bias[:, None, None]
    if x.ndim == 4:
        parts = [part.permute(0, 2, 3, 1).flatten(1) for part in parts]
    return torch.cat([F.linear(p, c) for p, c in zip(parts, columns, strict=True)], 1) + bias


def pool(x: Any, layer: layers.Pool) -> Any:
    """Maximum or mean; a clipped window's mean is over its area inside the image."""
    if layer.kind == "max":
        return F.max_pool2d(x, layer.window, layer.stride, ceil_mode=layer.ceil_mode)
    return F.avg_pool2d(
        x, layer.window, layer.stride, ceil_mode=layer.ceil_mode, count_include_pad=False
    )


def batch_norm(x: Any, layer: layers.BatchNorm, weights: Any, stats: Any, train: bool) -> Any:
    """Batch normalization; in training it updates `stats` in place."""
    scale, bias = weights
    return F.batch_norm(x, *stats, scale, bias, train, 1 - layer.momentum, layer.epsilon)


def response_norm(x: Any, layer: layers.LocalResponseNorm) -> Any:
    """PyTorch divides its alpha by the window."""
    norm = torch.nn.LocalResponseNorm(layer.size, layer.alpha * layer.size, layer.beta, layer.k)
    return torch.cat([norm(part) for part in x.chunk(layer.groups, dim=1)], dim=1)


def forward(
    spec: layers.ModelSpec,
    params: dict[str, Any],
    x: Any,
    *,
    stats: dict[str, Any] | None = None,
    train: bool = False,
    margins: list[float] | None = None,
) -> Any:
    """Runs a model, without dropout masks; x and weights are in PyTorch's layout.

    Args:
      spec: the layers.
      params: {layer: (kernel, bias)} or (scale, bias).
      x: (batch, channels, height, width).
      stats: {layer: (mean, variance)} of batch norms.
      train: whether batch norm uses the statistics of the batch.
      margins: if given, the margin of each max pool and ReLU is appended; see `margin`.
    """
    for layer in spec.layers:
        if margins is not None and isinstance(layer, layers.Pool | layers.Activation):
            margins.append(margin(x, layer))
        match layer:
            case layers.Conv():
                x = convolution(x, layer, *params[layer.name])
            case layers.LocallyConnected():
                x = locally_connected(x, layer, *params[layer.name])
            case layers.Dense():
                x = dense(x, layer, *params[layer.name])
            case layers.LocalResponseNorm():
                x = response_norm(x, layer)
            case layers.WithinChannelResponseNorm():
                x = within_channel_norm(x, layer)
            case layers.BatchNorm():
                x = batch_norm(x, layer, params[layer.name], (stats or {})[layer.name], train)
            case layers.GroupNorm():
                x = F.group_norm(x, layer.groups, *params[layer.name], layer.epsilon)
            case layers.Pool():
                x = pool(x, layer)
            case layers.AdaptivePool():
                x = F.adaptive_avg_pool2d(x, layer.output)
            case layers.Activation():
                x = ACTIVATIONS[layer.kind](x)
            case layers.Dropout():
                x = x * (1 - layer.rate) if not layer.inverted else x
            case _:
                raise AssertionError(f"{layer} has no peer")
    return x.mean((2, 3)) if x.ndim == 4 else x


def margin(x: Any, layer: layers.Pool | layers.Activation) -> float:
    """Returns the distance of the closest decision of a max pool or ReLU over the input's RMS.

    Without decisions it is infinity.
    """
    x = x.detach()
    rms = float(x.pow(2).mean().sqrt())
    if isinstance(layer, layers.Activation):
        return float(x.abs().min()) / rms if layer.kind == "relu" else np.inf
    if layer.kind != "max":
        return np.inf
    low = float(x.min()) - 2 * rms
    end = layer.window if layer.ceil_mode else 0
    windows = F.pad(x, (0, end, 0, end), value=low)
    windows = windows.unfold(2, layer.window, layer.stride).unfold(3, layer.window, layer.stride)
    best, second = windows.flatten(4).topk(2, dim=-1).values.unbind(-1)
    # Equal values are no decision: after a ReLU whole windows are 0, and so is the gradient below.
    gaps = (best - second)[best != second]
    return float(gaps.min()) / rms


TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}


def is_local(case: Case, name: str) -> bool:
    """Whether a layer has separate weights at each position; these keep their layout."""
    spec = case.model.spec
    return any(isinstance(x, layers.LocallyConnected) and x.name == name for x in spec.layers)


def to_torch(case: Case) -> dict[str, list[Any]]:
    """The weights in PyTorch's layout, with gradients enabled: kernel or scale, then bias."""

    def leaf(name: str, array: np.ndarray) -> Any:
        axes = range(array.ndim) if is_local(case, name) else TO_TORCH[array.ndim]
        return torch.tensor(np.ascontiguousarray(array.transpose(axes)), requires_grad=True)

    return {
        name: [leaf(name, arrays[role]) for role in sorted(arrays, reverse=True)]
        for name, arrays in case.params.items()
    }


def stats_to_torch(case: Case) -> dict[str, tuple[Any, Any]]:
    """The running means and variances of batch norms."""
    return {
        name: (torch.tensor(arrays["mean"]), torch.tensor(arrays["var"]))
        for name, arrays in case.batch_stats.items()
    }


def theirs(
    case: Case, *, train: bool = False, margins: list[float] | None = None
) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]], dict[str, Any]]:
    """Returns PyTorch's logits and gradients as `cases.ours` does, and the running statistics."""
    peers, stats = to_torch(case), stats_to_torch(case)
    x = torch.tensor(case.images.transpose(0, 3, 1, 2), requires_grad=True)
    spec = case.model.spec
    logits = forward(spec, peers, x, stats=stats, train=train, margins=margins)
    (logits * torch.tensor(case.weights)).sum().backward()
    gradients = {"images": {"pixels": x.grad.numpy().transpose(0, 2, 3, 1)}}
    for name, tensors in peers.items():
        gradients[name] = {}
        for role, tensor in zip(sorted(case.params[name], reverse=True), tensors, strict=True):
            array = tensor.grad.numpy()
            axes = range(array.ndim) if is_local(case, name) else TO_OURS[array.ndim]
            gradients[name][role] = array.transpose(axes)
    return logits.detach().numpy(), gradients, stats
