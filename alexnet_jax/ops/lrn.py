"""Response normalization: b = a / (k + alpha * sum over a window of a**2) ** beta.

Across channels it is the paper's local response normalization (section 3.3). Within a channel,
over space, it is the norm that follows the second one in the authors' code and is not mentioned in
the text (`cnorm2` of `layers/layers-145.cfg`).

`alpha` is always the coefficient of the plain sum of squares. Most libraries first divide the given
number by the size of the window: `alpha_of_sum` converts.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Differentiation = Literal["custom", "autodiff"]

# Conventions whose alpha is a coefficient of the sum of squares, and of their mean.
_OF_SUM = ("sum", "tensorflow", "theano")
_OF_MEAN = ("caffe", "torch", "onnx", "cuda_convnet")


class _Norm(NamedTuple):
    """The constants of a norm; hashable, so that they can be a static argument."""

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

    The window of channel c is c - size // 2 ... c + (size - 1) // 2, clipped at the first and last
    channel. An even window reaches one channel further back than forward, as in PyTorch.

    With k=0 and a window over all channels, alpha=1 and beta=0.5 give L2 normalization. A window of
    zeros is then 0/0: it gives NaN, also in the gradient. Any k > 0 avoids that.

    Args:
      x: `float[..., channels]`. Sums are computed in float32 at least.
      size: channels in a window; may be larger than the number of channels.
      k: added to the weighted sum.
      alpha: coefficient of the plain sum of squares; see `alpha_of_sum`.
      beta: exponent of the denominator.
      groups: number of equal slices of the channels that are normalized separately, as the towers
        are in the authors' code.
      differentiation: "custom" keeps only `x` for the backward pass; "autodiff" leaves everything
        to JAX, for forward mode (`jax.jvp`), Hessians and gradients with respect to k or alpha.

    Returns:
      An array of x's shape and type.

    Raises:
      ValueError: an argument is out of range, or `groups` does not divide the channels.
    """
    return _normalize(_Norm((-1,), groups, size, k, alpha, beta), x, differentiation)


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
    (`cnorm2` of `layers/layers-145.cfg`); so does cuda-convnet's CIFAR model of 18 %. Windows are
    size x size and aligned as in `local_response_norm`; outside the image are zeros.

    Args:
      x: `float[..., height, width, channels]`. Sums are computed in float32 at least.
      size: height and width of the window.
      k: added to the weighted sum.
      alpha: coefficient of the plain sum of squares; see `alpha_of_sum`.
      beta: exponent of the denominator.
      differentiation: as in `local_response_norm`.

    Returns:
      An array of x's shape and type.

    Raises:
      ValueError: an argument is out of range.
    """
    return _normalize(_Norm((-3, -2), 1, size, k, alpha, beta), x, differentiation)


def alpha_of_sum(alpha: float, size: int, convention: str, spatial: bool = False) -> float:
    """Converts an alpha in the convention of a library to the coefficient of the plain sum.

    Args:
      alpha: the number in that convention.
      size: length of the window.
      convention: "sum" (the paper), "tensorflow" or "theano", which use alpha as it is; or
        "caffe", "torch", "onnx" or "cuda_convnet", which divide it by the window's volume.
      spatial: whether the window is size x size over space.

    Returns:
      The `alpha` that `local_response_norm` and `within_channel_response_norm` take.

    Raises:
      ValueError: the convention is unknown.
    """
    if convention not in _OF_SUM + _OF_MEAN:
        raise ValueError(f"convention={convention!r} is not one of {_OF_SUM + _OF_MEAN}")
    return alpha if convention in _OF_SUM else alpha / (size**2 if spatial else size)


def _normalize(norm: _Norm, x: jax.Array, differentiation: str) -> jax.Array:
    """Checks the arguments and applies a norm."""
    if differentiation not in _FORMS:
        raise ValueError(f"differentiation={differentiation!r} is not one of {tuple(_FORMS)}")
    if not isinstance(norm.size, int) or norm.size < 1:
        raise ValueError(f"size={norm.size!r} is not a whole number of 1 or more")
    for name in ("k", "alpha", "beta"):
        number = getattr(norm, name)
        if isinstance(number, jax.core.Tracer):
            if differentiation == "custom":
                raise ValueError(f"{name} is traced, which needs differentiation='autodiff'")
        elif not isinstance(number, float | int | np.number) or not number >= 0:
            raise ValueError(f"{name}={number!r} is not a number of 0 or more")
    least_rank = -min(norm.axes)
    if x.ndim < least_rank or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x must be a float array of rank >= {least_rank}, not {jax.typeof(x)}")
    if norm.groups < 1 or x.shape[-1] % norm.groups:
        raise ValueError(f"groups={norm.groups} does not divide the {x.shape[-1]} channels")
    return _FORMS[differentiation](norm, x)


def _window_sum(x: jax.Array, norm: _Norm, *, mirrored: bool = False) -> jax.Array:
    """Sums x over each element's window, or over the elements whose windows contain it."""
    ends = norm.size // 2, (norm.size - 1) // 2
    before, after = ends[::-1] if mirrored else ends
    lengths = [x.shape[axis] // norm.groups for axis in norm.axes]
    if norm.groups == 1 and min(before, after) >= max(lengths) - 1:
        return jnp.broadcast_to(x.sum(norm.axes, keepdims=True), x.shape)
    reach = {
        axis % x.ndim: (min(before, length - 1), min(after, length - 1))
        for axis, length in zip(norm.axes, lengths, strict=True)
    }
    padded = jnp.pad(x, [reach.get(axis, (0, 0)) for axis in range(x.ndim)])
    # Without the barrier, XLA sees that the middle slice is x and stores x twice, padded and not.
    total = lax.optimization_barrier(padded)
    for axis in reach:
        total = _sum_along(total, axis, *reach[axis], norm.groups)
    return total


def _sum_along(padded: jax.Array, axis: int, before: int, after: int, groups: int) -> jax.Array:
    """Adds shifted slices; cumulative sums would lose small squares next to large ones."""
    length = padded.shape[axis] - before - after
    position = np.arange(length) % (length // groups)
    total = lax.slice_in_dim(padded, before, before + length, axis=axis)
    for offset in (*range(-before, 0), *range(1, after + 1)):
        neighbor = lax.slice_in_dim(padded, before + offset, before + offset + length, axis=axis)
        if groups > 1:  # on the last axis only; masks cost 4 %, a reshape 30 %
            inside = (position + offset >= 0) & (position + offset < length // groups)
            neighbor = jnp.where(inside, neighbor, 0)
        total += neighbor
    return total


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _power(d: jax.Array, beta: float) -> jax.Array:
    """Returns d**-beta; square roots cost a fraction of a logarithm and an exponential."""
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


def _backward(norm: _Norm, x: jax.Array, cotangent: jax.Array) -> tuple[jax.Array]:
    a, g = _wide(x), _wide(cotangent)
    denominator = norm.k + norm.alpha * _window_sum(a * a, norm)
    direct = g * _power(denominator, norm.beta)
    shared = _window_sum(direct * a / denominator, norm, mirrored=True)
    return ((direct - (2 * norm.alpha * norm.beta) * a * shared).astype(x.dtype),)


_custom.defvjp(lambda norm, x: (_plain(norm, x), x), _backward)
_FORMS: dict[str, Any] = {"custom": _custom, "autodiff": _plain}
