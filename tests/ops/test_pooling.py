import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.ops import adaptive_average_pool, average_pool, max_pool

# height, width, window, stride, ceil_mode
GEOMETRIES = [
    (7, 9, 3, 2, False),
    (8, 6, 3, 2, True),
    (5, 7, 1, 3, True),
    (1, 4, 3, 2, True),
    (9, 8, 4, 3, True),
    (5, 6, 3, 1, False),
]


@pytest.fixture(params=["cpu", "accelerator"])
def formulation(request, monkeypatch):
    """Both formulations run on any backend; a CPU stands in for the accelerator."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


def with_gradient(function, x, cotangent):
    """The output and the gradient, compiled in one piece: faster than operation by operation."""

    def both(x, cotangent):
        out, back = jax.vjp(function, x)
        return out, back(cotangent)[0]

    return jax.jit(both)(x, cotangent)


def windows(shape, window, stride, ceil_mode):
    """Yields (output position, slices of the input) in row-major order."""

    def starts(length):
        if ceil_mode:
            return [s for s in range(0, length, stride) if s == 0 or s - stride + window < length]
        return range(0, length - window + 1, stride)

    for i, top in enumerate(starts(shape[1])):
        for j, left in enumerate(starts(shape[2])):
            yield (i, j), (slice(top, top + window), slice(left, left + window))


def by_loops(reduction, x, *geometry):
    cells = {
        position: reduction(x[:, rows, columns], axis=(1, 2))
        for position, (rows, columns) in windows(x.shape, *geometry)
    }
    last = max(cells)
    out = np.empty((x.shape[0], last[0] + 1, last[1] + 1, x.shape[3]))
    for (i, j), cell in cells.items():
        out[:, i, j] = cell
    return out


def max_gradient_by_loops(x, cotangent, *geometry):
    gradient = np.zeros_like(x)
    for (i, j), (rows, columns) in windows(x.shape, *geometry):
        for b in range(x.shape[0]):
            for c in range(x.shape[3]):
                patch = x[b, rows, columns, c]
                row, column = np.unravel_index(np.argmax(patch), patch.shape)  # the first one
                gradient[b, rows.start + row, columns.start + column, c] += cotangent[b, i, j, c]
    return gradient


def few_values(*shape):
    """Integers of which two thirds are zero, as after a ReLU: ties everywhere."""
    values = np.random.default_rng(0).integers(-3, 3, size=shape)
    return np.maximum(values, 0).astype(np.float32)


@pytest.mark.usefixtures("formulation")
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_max_pool_and_its_gradient_with_ties(geometry):
    height, width, window, stride, ceil_mode = geometry
    x = few_values(2, height, width, 3)
    pool = functools.partial(max_pool, window=window, stride=stride, ceil_mode=ceil_mode)
    expected = by_loops(np.max, x, window, stride, ceil_mode)
    cotangent = np.random.default_rng(1).integers(1, 9, size=expected.shape).astype(np.float32)
    out, gradient = with_gradient(pool, x, cotangent)
    np.testing.assert_array_equal(out, expected)
    slope = max_gradient_by_loops(x, cotangent, window, stride, ceil_mode)
    np.testing.assert_array_equal(gradient, slope)


@pytest.mark.usefixtures("formulation")
def test_max_pool_of_negative_numbers_infinities_and_nans():
    pool = jax.jit(functools.partial(max_pool, window=3, stride=2, ceil_mode=True))
    x = -np.ones((1, 6, 6, 1), np.float32)
    np.testing.assert_array_equal(pool(x), -1)
    np.testing.assert_array_equal(pool(np.full_like(x, -np.inf)), -np.inf)
    for row, column in np.ndindex(2, 2):  # of the first window, and of no other
        x[:] = 5
        x[0, row, column] = np.nan
        np.testing.assert_array_equal(np.argwhere(np.isnan(pool(x))), [[0, 0, 0, 0]])
    x[0, 2, 2] = np.nan
    assert np.isnan(pool(x))[0, :2, :2].all()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_average_pool_divides_by_the_area_in_the_image(geometry):
    height, width, window, stride, ceil_mode = geometry
    x = np.random.default_rng(0).normal(size=(2, height, width, 3))
    expected = by_loops(np.mean, x, window, stride, ceil_mode)
    cotangent = np.random.default_rng(1).normal(size=expected.shape)
    slope = np.zeros_like(x)
    for (i, j), (rows, columns) in windows(x.shape, window, stride, ceil_mode):
        area = x[0, rows, columns, 0].size
        slope[:, rows, columns] += cotangent[:, i, None, None, j] / area
    pool = functools.partial(average_pool, window=window, stride=stride, ceil_mode=ceil_mode)
    with jax.enable_x64(True):
        out, gradient = with_gradient(pool, x, cotangent)
    np.testing.assert_allclose(out, expected, atol=1e-12)
    np.testing.assert_allclose(gradient, slope, atol=1e-12)


@pytest.mark.parametrize("pool", [max_pool, average_pool])
def test_sizes_of_the_authors_models(pool):
    for sizes in ((55, 27, 13, 6), (32, 16, 8, 4)):  # ImageNet, where all is exact; CIFAR-10
        for length, expected in itertools.pairwise(sizes):
            x = jax.ShapeDtypeStruct((1, length, length, 1), jnp.float32)
            out = jax.eval_shape(lambda x: pool(x, 3, 2, ceil_mode=True), x)
            assert out.shape == (1, expected, expected, 1)


@pytest.mark.parametrize(
    ("height", "width", "output"), [(13, 13, 6), (7, 6, 6), (6, 6, 6), (1, 2, 4), (9, 5, 1)]
)
def test_adaptive_average_pool_is_pytorchs(height, width, output):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3))
    expected = np.empty((2, output, output, 3))
    for i in range(output):
        top, bottom = int(np.floor(i * height / output)), int(np.ceil((i + 1) * height / output))
        for j in range(output):
            left, right = int(np.floor(j * width / output)), int(np.ceil((j + 1) * width / output))
            expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    with jax.enable_x64(True):
        pool = jax.jit(functools.partial(adaptive_average_pool, output=output))
        np.testing.assert_allclose(pool(x), expected)


def test_max_pool_takes_forward_mode():
    x, direction = few_values(1, 7, 7, 2), few_values(1, 7, 7, 2)[:, ::-1]
    pool = functools.partial(max_pool, window=3, stride=2)
    out, slope = jax.jit(lambda x, v: jax.jvp(pool, (x,), (v,)))(x, direction)
    cotangent = np.arange(out.size, dtype=np.float32).reshape(out.shape)
    gradient = max_gradient_by_loops(x, cotangent, 3, 2, False)
    assert float(jnp.sum(slope * cotangent)) == np.sum(gradient * direction)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_types_are_kept(dtype):
    x = jax.ShapeDtypeStruct((1, 7, 7, 2), dtype)
    for pool, arguments in (
        (max_pool, (3, 2)),
        (average_pool, (3, 2)),
        (adaptive_average_pool, (3,)),
    ):
        assert jax.eval_shape(lambda x, p=pool, a=arguments: p(x, *a), x).dtype == dtype


def test_wrong_arguments_are_named():
    x = jnp.ones((1, 4, 8, 1))
    with pytest.raises(ValueError, match=r"5.*\(4, 8\)"):
        max_pool(x, 5, 2)
    with pytest.raises(ValueError, match="stride=0"):
        average_pool(x, 2, 0)
    with pytest.raises(ValueError, match="window=0"):
        max_pool(x, 0, 2)
    with pytest.raises(ValueError, match="output=0"):
        adaptive_average_pool(x, 0)
