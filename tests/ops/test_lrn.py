import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from alexnet_jax.ops import alpha_of_sum, local_response_norm, within_channel_response_norm

FORMS = ("custom", "autodiff")


def window(index, size, length):
    return range(max(0, index - size // 2), min(length, index + (size - 1) // 2 + 1))


def local_by_loops(x, size, k, alpha, beta, groups=1):
    out = np.empty_like(x)
    length = x.shape[-1] // groups
    for *pixel, channel in np.ndindex(x.shape):
        first = channel // length * length
        members = [first + i for i in window(channel - first, size, length)]
        total = sum(x[(*pixel, i)] ** 2 for i in members)
        out[(*pixel, channel)] = x[(*pixel, channel)] / (k + alpha * total) ** beta
    return out


def within_channel_by_loops(x, size, k, alpha, beta):
    out = np.empty_like(x)
    for b, row, column, c in np.ndindex(x.shape):
        total = 0.0
        for i in window(row, size, x.shape[1]):
            for j in window(column, size, x.shape[2]):
                total += x[b, i, j, c] ** 2
        out[b, row, column, c] = x[b, row, column, c] / (k + alpha * total) ** beta
    return out


def central_differences(function, x, cotangent, step=1e-5):
    gradient = np.empty_like(x)
    for index in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[index] += sign * step
            ends.append(np.sum(function(moved) * cotangent))
        gradient[index] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def with_gradient(function, x, cotangent):
    """The output and the gradient, compiled in one piece: faster than operation by operation."""

    def both(x, cotangent):
        out, back = jax.vjp(function, x)
        return out, back(cotangent)[0]

    return jax.jit(both)(x, cotangent)


@st.composite
def local_norms(draw):
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 5))
    leading = draw(st.lists(st.integers(1, 2), max_size=3))
    size = draw(st.integers(1, 12))
    beta = draw(st.sampled_from([0.5, 0.75, 1.0]))
    return (*leading, channels), {"size": size, "beta": beta, "groups": groups}


def in_both_forms(**options):
    norms = [functools.partial(local_response_norm, differentiation=form) for form in FORMS]
    return lambda x: tuple(norm(x, **options) for norm in norms)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((7,), {"size": 3, "beta": 0.75, "groups": 1}),
        ((2, 1, 2, 6), {"size": 4, "beta": 0.5, "groups": 2}),
        ((1, 2, 5), {"size": 12, "beta": 1.0, "groups": 1}),
    ],
)
def test_local_norm_is_the_formula(shape, options):
    check_local_norm(shape, options)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, derandomize=True)
@given(local_norms())
def test_local_norm_is_the_formula_for_any_shape_and_window(case):
    check_local_norm(*case)


def check_local_norm(shape, options):
    x, cotangent = 3 * normal(*shape), normal(*shape, seed=1)
    options |= {"k": 1.5, "alpha": 0.1}
    expected = local_by_loops(x, **options)
    slope = central_differences(functools.partial(local_by_loops, **options), x, cotangent)
    with jax.enable_x64(True):
        out, gradient = with_gradient(in_both_forms(**options), x, (cotangent, 2 * cotangent))
        for one in out:
            np.testing.assert_allclose(one, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, 3 * slope, atol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 5, 4, 3), 3), ((1, 4, 5, 2), 4), ((1, 2, 3, 2), 5), ((1, 1, 6, 1), 2), ((1, 2, 2, 1), 9)],
)
def test_within_channel_norm_is_the_formula(form, shape, size):
    x, cotangent = 3 * normal(*shape), normal(*shape, seed=1)
    options = {"size": size, "k": 1.0, "alpha": 0.05, "beta": 0.75}
    expected = functools.partial(within_channel_by_loops, **options)
    with jax.enable_x64(True):
        norm = functools.partial(within_channel_response_norm, differentiation=form, **options)
        out, gradient = with_gradient(norm, x, cotangent)
        np.testing.assert_allclose(out, expected(x), rtol=1e-12)
        np.testing.assert_allclose(gradient, central_differences(expected, x, cotangent), atol=1e-8)


def test_defaults_are_the_papers_and_those_of_cnorm2():
    x = 50 * normal(1, 4, 4, 7)
    paper = local_by_loops(x, 5, 2.0, 1e-4, 0.75)
    np.testing.assert_allclose(jax.jit(local_response_norm)(np.float32(x)), paper, rtol=1e-5)
    code = within_channel_by_loops(x, 5, 1.0, 1e-3 / 25, 0.75)
    np.testing.assert_allclose(
        jax.jit(within_channel_response_norm)(np.float32(x)), code, rtol=1e-5
    )


def test_an_even_window_reaches_further_back():
    probe = np.full(9, 1e-3, np.float32)
    probe[4] = 1
    norm = functools.partial(local_response_norm, size=4, k=1.0, alpha=1.0)
    (felt,) = np.nonzero(jax.jit(norm)(probe) < 0.9 * probe)
    assert felt.tolist() == [3, 4, 5, 6]  # c sees c - 2 ... c + 1


def test_nothing_leaks_between_groups():
    x = np.ones((1, 8), np.float32)
    x[0, 3] = np.nan
    for result in with_gradient(
        functools.partial(local_response_norm, groups=2), x, np.ones_like(x)
    ):
        assert np.isnan(result[0, 3])
        assert np.isfinite(result[0, 4:]).all()


@pytest.mark.parametrize(
    ("convention", "across", "spatial"),
    [
        ("sum", 1e-4, 1e-4),
        ("tensorflow", 1e-4, 1e-4),
        ("theano", 1e-4, 1e-4),
        ("caffe", 2e-5, 4e-6),
        ("torch", 2e-5, 4e-6),
        ("onnx", 2e-5, 4e-6),
        ("cuda_convnet", 2e-5, 4e-6),
    ],
)
def test_conventions_of_alpha(convention, across, spatial):
    assert alpha_of_sum(1e-4, 5, convention) == pytest.approx(across, rel=1e-12)
    assert alpha_of_sum(1e-4, 5, convention, spatial=True) == pytest.approx(spatial, rel=1e-12)


def test_alphas_of_the_authors_configs():
    assert alpha_of_sum(1e-3, 5, "cuda_convnet", spatial=True) == pytest.approx(4e-5)  # cnorm2
    assert alpha_of_sum(1e-3, 9, "cuda_convnet") == pytest.approx(1.11e-4, rel=2e-3)  # 11 % model
    assert alpha_of_sum(5e-5, 3, "cuda_convnet", spatial=True) == pytest.approx(5e-5 / 9)  # 18 %


@pytest.mark.parametrize("norm", [local_response_norm, within_channel_response_norm])
def test_autodiff_form_takes_every_transformation(norm):
    x, direction = normal(3, 2, 2, 3), normal(3, 2, 2, 3, seed=1)

    def score(x, form="autodiff"):
        return jnp.sum(jnp.sin(norm(x, size=3, alpha=0.2, differentiation=form)))

    with jax.enable_x64(True):
        gradients = jax.jit(jax.vmap(jax.grad(score)))
        moved = (gradients(x + 1e-5 * direction) - gradients(x - 1e-5 * direction)) / 2e-5
        curvature = jax.jit(jax.vmap(jax.hessian(score)))(x)
        turned = jnp.einsum("nijkabc,nabc->nijk", curvature, direction)
        np.testing.assert_allclose(turned, moved, atol=1e-8)
        slope = jax.jit(jax.vmap(lambda x, v: jax.jvp(score, (x,), (v,))[1]))(x, direction)
        np.testing.assert_allclose(slope, np.sum(gradients(x) * direction, (1, 2, 3)), rtol=1e-10)
        custom = jax.jit(jax.vmap(jax.grad(functools.partial(score, form="custom"))))(x)
        np.testing.assert_allclose(custom, gradients(x), rtol=1e-10)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_types_are_kept_and_sums_are_in_float32_at_least(form, dtype):
    norm = functools.partial(local_response_norm, differentiation=form)
    with jax.enable_x64(True):
        x = jnp.asarray(300 + normal(2, 6), dtype)  # squared, beyond float16
        out, gradient = with_gradient(norm, x, jnp.ones_like(x))
        assert out.dtype == gradient.dtype == x.dtype
        exact = functools.partial(local_by_loops, size=5, k=2.0, alpha=1e-4, beta=0.75)
        wide = np.asarray(x, np.float64)
        slope = central_differences(exact, wide, np.ones_like(wide), step=1e-3)
        rounding = float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(np.float64(out), exact(wide), rtol=2 * rounding)
        np.testing.assert_allclose(np.float64(gradient), slope, atol=1e-9 + rounding)


@pytest.mark.parametrize("norm", [local_response_norm, within_channel_response_norm])
def test_custom_form_keeps_only_its_input(norm):
    x = jnp.ones((2, 5, 5, 8), jnp.bfloat16)
    kept = {
        form: jax.jit(lambda x, form=form: jax.vjp(lambda x: norm(x, differentiation=form), x)[1])(
            x
        )
        for form in FORMS
    }
    (only,) = (leaf for leaf in jax.tree.leaves(kept["custom"]) if np.ndim(leaf))
    assert only.dtype == x.dtype
    np.testing.assert_array_equal(only, x)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(kept["autodiff"]) if np.ndim(leaf)]
    assert sum(sizes) > only.nbytes


def test_a_window_over_all_channels_can_give_l2_normalization():
    x = normal(3, 7)
    with jax.enable_x64(True):
        l2 = functools.partial(local_response_norm, size=15, k=0.0, alpha=1.0, beta=0.5)
        out, gradient = with_gradient(l2, x, normal(3, 7, seed=1))
        np.testing.assert_allclose(out, x / np.sqrt((x**2).sum(-1, keepdims=True)), rtol=1e-12)
        # The output does not depend on the input's length.
        np.testing.assert_allclose(np.sum(gradient * x, -1), 0, atol=1e-12)
        for result in with_gradient(l2, np.zeros(7), np.ones(7)):
            assert np.isnan(result).all()
        kept = local_response_norm(np.zeros(7), size=15, k=1e-12, alpha=1.0, beta=0.5)
        np.testing.assert_array_equal(kept, 0)


def test_extreme_sums_neither_overflow_nor_vanish():
    scales = np.float32([[1e-15], [1e15]])  # the powers of 1.5 of their squares are no float32
    out = jax.jit(functools.partial(local_response_norm, size=1, k=0.0, alpha=1.0))(scales)
    np.testing.assert_allclose(out, scales**-0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differentiation": "fast"}, "differentiation='fast'.*'autodiff'"),
        ({"size": 0}, "size=0"),
        ({"groups": 4}, "groups=4.*6"),
        ({"groups": 0}, "groups=0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        local_response_norm(jnp.ones((2, 6)), **options)


def test_wrong_arrays_and_conventions_are_named():
    with pytest.raises(ValueError, match="rank"):
        within_channel_response_norm(jnp.ones((2, 6)))
    with pytest.raises(ValueError, match="int32"):
        local_response_norm(jnp.ones((2, 6), jnp.int32))
    with pytest.raises(ValueError, match=r"convention='pytorch'.*'torch'"):
        alpha_of_sum(1e-4, 5, "pytorch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 2.5}, "size=2.5"),
        ({"k": -3.0}, "k=-3.0"),
        ({"alpha": float("nan")}, "alpha=nan"),
        ({"beta": "1"}, "beta='1'"),
    ],
)
@pytest.mark.parametrize("norm", [local_response_norm, within_channel_response_norm])
def test_wrong_numbers_are_named(norm, arguments, message):
    with pytest.raises(ValueError, match=message):
        norm(jnp.ones((4, 4, 8)), **arguments)


def test_gradients_by_k_and_alpha_need_autodiff():
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 8)))

    def total(k, alpha, differentiation):
        norm = local_response_norm(x, 5, k, alpha, differentiation=differentiation)
        return jnp.sum(norm**2)

    free = jax.jit(functools.partial(total, differentiation="autodiff"))
    found = jax.jit(jax.grad(free, argnums=(0, 1)))(2.0, 0.5)
    step = 1e-2
    by_k = (free(2 + step, 0.5) - free(2 - step, 0.5)) / (2 * step)
    by_alpha = (free(2.0, 0.5 + step) - free(2.0, 0.5 - step)) / (2 * step)
    np.testing.assert_allclose(found, (by_k, by_alpha), rtol=1e-3)
    with pytest.raises(ValueError, match=r"^alpha.*autodiff"):
        jax.grad(total, argnums=1)(2.0, 0.5, "custom")
