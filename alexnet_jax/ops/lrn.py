"""Response normalization: b = a / (k + alpha * sum over a window of a**2) ** beta.

Across channels it is the paper's local response normalization (section 3.3); over space it is the
norm that the authors' code has after the second one and the text never mentions (`cnorm2` of
`layers/layers-145.cfg`).

`alpha` is always the coefficient of the plain sum of squares. Most libraries divide the number that
a user writes by the window's size first: `alpha_of_sum` converts.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Differentiation = Literal["custom", "autodiff"]

# What a user's alpha is divided by, as a power of the window's length: (across channels, spatial).
_ALPHA_DIVISOR_POWER = {
    "sum": (0, 0),
    "tensorflow": (0, 0),
    "theano": (0, 0),
    "caffe": (1, 2),
    "torch": (1, 2),
    "onnx": (1, 2),
    "cuda_convnet": (1, 2),
}


class _Norm(NamedTuple):
    """What a norm is, apart from its input; hashable, so that it can be a static argument."""

    axes: tuple[int, ...]
    groups: int
    size: int
    k: float
    alpha: float
    beta: float


def local_response_norm(
    x: jax.Array,
    size: int = 5,
    k: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
    *,
    groups: int = 1,
    differentiation: Differentiation = "custom",
) -> jax.Array:
    """Normalizes each channel by the squares of its neighbors (paper, section 3.3).

    Channel c's window is c - size // 2 ... c + (size - 1) // 2, clipped at the first and last
    channel; so an even window reaches one channel further back than forward, as PyTorch's does.

    With k=0 and a window over all channels, alpha=1 and beta=0.5 make this L2 normalization. A
    window of zeros is then 0/0: it gives NaN, in the gradient too. Any k > 0 avoids that.

    Args:
        x: `[..., channels]`, any float type. Sums are formed in float32 at least.
        size: Channels in a window; may be more than there are.
        k: Added to the weighted sum.
        alpha: Coefficient of the plain sum of squares; see `alpha_of_sum`.
        beta: Power of the denominator.
        groups: Normalizes each of so many equal slices of the channels by itself, as the authors'
            code does within a tower.
        differentiation: "custom" keeps nothing but `x` for the backward pass; "autodiff" leaves
            everything to JAX, for forward mode (`jax.jvp`), Hessians and gradients by k or alpha.

    Returns:
        An array of x's shape and type.

    Raises:
        ValueError: An argument is out of its range, or `groups` does not divide the channels.
    """
    _check(x, size, (k, alpha, beta), differentiation, least_rank=1)
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ValueError(f"groups={groups} does not divide the {channels} channels")
    return _FORMS[differentiation](_Norm((-1,), groups, size, k, alpha, beta), x)


def within_channel_response_norm(
    x: jax.Array,
    size: int = 5,
    k: float = 1.0,
    alpha: float = 4e-5,
    beta: float = 0.75,
    *,
    differentiation: Differentiation = "custom",
) -> jax.Array:
    """Normalizes each pixel by the squares of its neighbors in the same channel.

    The authors' code has it after the second local response norm, with a scale of 1e-3 / 5**2
    (`cnorm2` of `layers/layers-145.cfg`); so does cuda-convnet's CIFAR net of 18 %. Windows are
    size x size and placed as in `local_response_norm`; outside the picture are zeros.

    Args:
        x: `[..., height, width, channels]`, any float type. Sums are formed in float32 at least.
        size: Height and width of the window.
        k: Added to the weighted sum.
        alpha: Coefficient of the plain sum of squares; see `alpha_of_sum`.
        beta: Power of the denominator.
        differentiation: As in `local_response_norm`.

    Returns:
        An array of x's shape and type.

    Raises:
        ValueError: An argument is out of its range.
    """
    _check(x, size, (k, alpha, beta), differentiation, least_rank=3)
    return _FORMS[differentiation](_Norm((-3, -2), 1, size, k, alpha, beta), x)


def alpha_of_sum(alpha: float, size: int, convention: str, spatial: bool = False) -> float:
    """Converts an alpha written in some library's convention to the plain sum's coefficient.

    Args:
        alpha: The number as its user wrote it.
        size: Length of the window.
        convention: "sum" (the paper), "tensorflow" or "theano", which use alpha as it is; or
            "caffe", "torch", "onnx" or "cuda_convnet", which divide it by the window's volume.
        spatial: Whether the window is size x size over space.

    Returns:
        The `alpha` that `local_response_norm` and `within_channel_response_norm` want.

    Raises:
        ValueError: The convention is unknown.
    """
    if convention not in _ALPHA_DIVISOR_POWER:
        raise ValueError(_not_among("convention", convention, list(_ALPHA_DIVISOR_POWER)))
    return alpha / size ** _ALPHA_DIVISOR_POWER[convention][spatial]


def _check(
    x: jax.Array,
    size: int,
    numbers: tuple[float, float, float],
    differentiation: str,
    least_rank: int,
) -> None:
    if differentiation not in _FORMS:
        raise ValueError(_not_among("differentiation", differentiation, list(_FORMS)))
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"size={size!r}: a window holds a whole number of elements, 1 or more")
    for name, number in zip(("k", "alpha", "beta"), numbers, strict=True):
        if isinstance(number, jax.core.Tracer):
            if differentiation == "custom":
                raise ValueError(f"{name} varies: that takes differentiation='autodiff'")
        elif not isinstance(number, float | int | np.number) or not number >= 0:
            raise ValueError(f"{name}={number!r} is not a number of 0 or more")
    if x.ndim < least_rank or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"a float array of rank >= {least_rank} is wanted, not {jax.typeof(x)}")


def _not_among(name: str, value: str, choices: list[str]) -> str:
    return f"{name}={value!r} is not one of {', '.join(map(repr, choices))}"


def _window_sum(x: jax.Array, norm: _Norm, *, mirrored: bool = False) -> jax.Array:
    """Sums x over each element's window, or over all elements whose window it lies in."""
    before, after = norm.size // 2, (norm.size - 1) // 2
    if mirrored:
        before, after = after, before
    lengths = [x.shape[axis] // norm.groups for axis in norm.axes]
    if norm.groups == 1 and min(before, after) >= max(lengths) - 1:
        return jnp.broadcast_to(x.sum(norm.axes, keepdims=True), x.shape)
    reach = {
        axis % x.ndim: (min(before, length - 1), min(after, length - 1))
        for axis, length in zip(norm.axes, lengths, strict=True)
    }
    padded = jnp.pad(x, [reach.get(axis, (0, 0)) for axis in range(x.ndim)])
    # Unbarred, XLA sees that the middle slice is x itself and stores x twice, padded and not.
    total = lax.optimization_barrier(padded)
    for axis in reach:
        total = _sum_along(total, axis, *reach[axis], norm.groups)
    return total


def _sum_along(padded: jax.Array, axis: int, before: int, after: int, groups: int) -> jax.Array:
    """Adds shifted slices; cumulative sums would lose the small squares next to large ones."""
    length = padded.shape[axis] - before - after
    position = np.arange(length) % (length // groups)
    total = lax.slice_in_dim(padded, before, before + length, axis=axis)
    for offset in (*range(-before, 0), *range(1, after + 1)):
        neighbor = lax.slice_in_dim(padded, before + offset, before + offset + length, axis=axis)
        if groups > 1:  # on the last axis alone; masks cost 4 %, a reshape 30 %
            inside = (position + offset >= 0) & (position + offset < length // groups)
            neighbor = jnp.where(inside, neighbor, 0)
        total += neighbor
    return total


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _power(d: jax.Array, beta: float) -> jax.Array:
    """Forms d**-beta; square roots cost a fraction of a logarithm and an exponential."""
    if beta == 0.75:
        # As rsqrt(d) * sqrt(rsqrt(d)), XLA's CPU backend stores both factors: 20-30 % slower.
        root = jnp.sqrt(d)
        return 1 / (root * jnp.sqrt(root))
    return d**-beta


def _plain(norm: _Norm, x: jax.Array) -> jax.Array:
    a = _wide(x)
    denominator = norm.k + norm.alpha * _window_sum(a * a, norm)
    return (a * _power(denominator, norm.beta)).astype(x.dtype)


_custom = jax.custom_vjp(_plain, nondiff_argnums=(0,))


def _forward(norm: _Norm, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _plain(norm, x), x


def _backward(norm: _Norm, x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    a, g = _wide(x), _wide(cotangent)
    denominator = norm.k + norm.alpha * _window_sum(a * a, norm)
    direct = g * _power(denominator, norm.beta)
    shared = _window_sum(direct * a / denominator, norm, mirrored=True)
    return ((direct - (2 * norm.alpha * norm.beta) * a * shared).astype(x.dtype),)


_custom.defvjp(_forward, _backward)

_FORMS: dict[str, Callable[[_Norm, jax.Array], jax.Array]] = {
    "custom": _custom,
    "autodiff": _plain,
}
