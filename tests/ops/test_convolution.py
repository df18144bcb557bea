import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from alexnet_jax.ops import convolution

# batch, height, width, channels, kernel rows and columns, filters, stride, padding, groups;
# 24 images are three parts of the weight gradient, 7 and 17 do not divide.
GEOMETRIES = [
    (24, 4, 5, 4, 3, 3, 6, 1, 1, 2),
    (16, 9, 8, 3, 5, 4, 2, 4, ((0, 3), (0, 3)), 1),
    (17, 3, 3, 2, 2, 2, 2, 1, ((1, 0), (2, 1)), 1),
    (7, 5, 5, 6, 3, 3, 3, 2, ((1, 0), (2, 1)), 3),
    (1, 4, 4, 2, 1, 1, 2, 3, 0, 1),
]


@pytest.fixture(params=["cpu", "accelerator"])
def formulation(request, monkeypatch):
    """Both formulations run on any backend; a CPU stands in for the accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def case(geometry):
    """The arrays and options of a geometry."""
    batch, height, width, channels, rows, columns, filters, stride, padding, groups = geometry
    x = normal(batch, height, width, channels, seed=0)
    kernel = normal(rows, columns, channels // groups, filters, seed=1)
    return x, kernel, {"stride": stride, "padding": padding, "groups": groups}


def by_loops(x, kernel, stride, padding, groups, cotangent=None):
    """The output; or, given a cotangent, the gradients of x and kernel."""
    sides = ((padding, padding),) * 2 if isinstance(padding, int) else padding
    padded = np.pad(x, ((0, 0), *sides, (0, 0)))
    rows, columns, depth, filters = kernel.shape
    out_rows = (padded.shape[1] - rows) // stride + 1
    out_columns = (padded.shape[2] - columns) // stride + 1
    out = np.zeros((len(x), out_rows, out_columns, filters))
    padded_gradient, kernel_gradient = np.zeros_like(padded), np.zeros_like(kernel)
    for b, i, j, f in np.ndindex(out.shape):
        first = f // (filters // groups) * depth
        window = (
            b,
            slice(i * stride, i * stride + rows),
            slice(j * stride, j * stride + columns),
            slice(first, first + depth),
        )
        out[b, i, j, f] = np.sum(padded[window] * kernel[..., f])
        if cotangent is not None:
            padded_gradient[window] += cotangent[b, i, j, f] * kernel[..., f]
            kernel_gradient[..., f] += cotangent[b, i, j, f] * padded[window]
    if cotangent is None:
        return out
    (top, _), (left, _) = sides
    inside = (slice(None), slice(top, top + x.shape[1]), slice(left, left + x.shape[2]))
    return padded_gradient[inside], kernel_gradient


@pytest.mark.usefixtures("formulation")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_convolution_and_both_gradients(geometry):
    x, kernel, options = case(geometry)
    expected = by_loops(x, kernel, **options)
    cotangent = normal(*expected.shape, seed=2)
    slopes = by_loops(x, kernel, **options, cotangent=cotangent)
    with jax.enable_x64(True):
        convolve = functools.partial(convolution, **options)

        @jax.jit
        def derive(x, kernel, cotangent):
            out, back = jax.vjp(convolve, x, kernel)
            _, of_kernel = jax.vjp(lambda kernel: convolve(x, kernel), kernel)
            return out, *back(cotangent), *of_kernel(cotangent)

        results = derive(x, kernel, cotangent)
    for result, reference in zip(results, (expected, *slopes, slopes[1]), strict=True):
        np.testing.assert_allclose(result, reference, atol=1e-12)


def test_forward_mode_and_second_derivatives():
    x, kernel, options = case(GEOMETRIES[0])
    x_dot, kernel_dot = normal(*x.shape, seed=3), normal(*kernel.shape, seed=4)
    product_rule = by_loops(x_dot, kernel, **options) + by_loops(x, kernel_dot, **options)
    with jax.enable_x64(True):
        convolve = functools.partial(convolution, **options)
        pair = ((x, kernel), (x_dot, kernel_dot))
        slope = jax.jit(lambda *pair: jax.jvp(convolve, *pair)[1])(*pair)
        np.testing.assert_allclose(slope, product_rule, atol=1e-12)

        # d/dkernel of sum(out**2) / 2 is linear in the kernel: its slope is exact.
        def gradient(kernel):
            return jax.grad(lambda kernel: jnp.sum(convolve(x, kernel) ** 2) / 2)(kernel)

        curvature = jax.jit(lambda k, v: jax.jvp(gradient, (k,), (v,))[1])(kernel, kernel_dot)
        out_dot = by_loops(x, kernel_dot, **options)
        expected = by_loops(x, kernel, **options, cotangent=out_dot)[1]
        np.testing.assert_allclose(curvature, expected, atol=1e-10)


def test_gradients_of_single_examples():
    x, kernel, options = case(GEOMETRIES[0])
    cotangent = normal(*by_loops(x, kernel, **options).shape, seed=2)

    def one(x, cotangent):
        def score(kernel):
            return jnp.sum(convolution(x[None], kernel, **options) * cotangent)

        return jax.grad(score)(kernel)

    with jax.enable_x64(True):
        gradients = jax.jit(jax.vmap(one))(x, cotangent)
    for i in (0, 23):
        part = slice(i, i + 1)
        expected = by_loops(x[part], kernel, **options, cotangent=cotangent[part])[1]
        np.testing.assert_allclose(gradients[i], expected, atol=1e-12)


def test_a_sharded_batch_is_not_moved():
    x = np.float32(normal(64, 3, 3, 3, seed=0))
    kernel = np.float32(normal(3, 3, 3, 4, seed=1))
    mesh = jax.make_mesh((4,), ("data",))
    sharded = NamedSharding(mesh, PartitionSpec("data"))
    replicated = NamedSharding(mesh, PartitionSpec())

    def loss(kernel, x):
        return jnp.sum(convolution(x, kernel, padding=1) ** 2)

    shardings = {"in_shardings": (replicated, sharded), "out_shardings": replicated}
    step = jax.jit(jax.grad(loss), **shardings).lower(kernel, x).compile()
    text = step.as_text()
    assert "all-reduce" in text
    for movement in ("all-gather", "all-to-all", "collective-permute"):
        assert movement not in text
    slope = by_loops(x, kernel, 1, 1, 1, cotangent=2 * by_loops(x, kernel, 1, 1, 1))[1]
    result = step(jax.device_put(kernel, replicated), jax.device_put(x, sharded))
    np.testing.assert_allclose(result, slope, rtol=1e-4)


def test_conv1_of_the_authors_model_gives_55_by_55():
    x = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.bfloat16)
    kernel = jax.ShapeDtypeStruct((11, 11, 3, 96), jnp.bfloat16)
    convolve = functools.partial(convolution, stride=4, padding=((0, 3), (0, 3)))
    out = jax.eval_shape(convolve, x, kernel)
    assert (out.shape, out.dtype) == ((2, 55, 55, 96), jnp.bfloat16)


@pytest.mark.parametrize(
    ("channels", "depth", "filters", "groups"),
    [(4, 4, 6, 2), (4, 2, 5, 2), (5, 2, 6, 2), (4, 4, 6, 0)],
)
def test_kernels_that_do_not_fit(channels, depth, filters, groups):
    x, kernel = jnp.ones((1, 5, 5, channels)), jnp.ones((3, 3, depth, filters))
    with pytest.raises(ValueError, match=rf"\(3, 3, {depth}, {filters}\).*{channels}"):
        convolution(x, kernel, padding=1, groups=groups)
