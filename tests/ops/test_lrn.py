import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet_jax.ops import alpha_of_sum, local_response_norm, spatial_response_norm

FORMS = ("custom", "autodiff")


def window(place, size, length):
    return range(max(0, place - size // 2), min(length, place + (size - 1) // 2 + 1))


def local_by_loops(x, size, k, alpha, beta, groups=1):
    out = np.empty_like(x)
    length = x.shape[-1] // groups
    for *pixel, channel in np.ndindex(x.shape):
        first = channel // length * length
        members = [first + i for i in window(channel - first, size, length)]
        total = sum(x[(*pixel, i)] ** 2 for i in members)
        out[(*pixel, channel)] = x[(*pixel, channel)] / (k + alpha * total) ** beta
    return out


def spatial_by_loops(x, size, k, alpha, beta):
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
    for place in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[place] += sign * step
            ends.append(np.sum(function(moved) * cotangent))
        gradient[place] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def pull_back(function, x, cotangent):
    return jax.vjp(function, x)[1](cotangent)[0]


@st.composite
def local_norms(draw):
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 5))
    leading = draw(st.lists(st.integers(1, 2), max_size=3))
    size = draw(st.integers(1, 12))
    beta = draw(st.sampled_from([0.5, 0.75, 1.0]))
    return (*leading, channels), {"size": size, "beta": beta, "groups": groups}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(local_norms())
def test_local_norm_is_the_formula_for_any_shape_and_window(case):
    shape, options = case
    x, cotangent = 3 * normal(*shape), normal(*shape, seed=1)
    options |= {"k": 1.5, "alpha": 0.1}
    expected = local_by_loops(x, **options)
    slope = central_differences(functools.partial(local_by_loops, **options), x, cotangent)
    with jax.enable_x64(True):
        for form in FORMS:
            norm = jax.jit(functools.partial(local_response_norm, differentiation=form, **options))
            np.testing.assert_allclose(norm(x), expected, rtol=1e-12)
            np.testing.assert_allclose(pull_back(norm, x, cotangent), slope, atol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 5, 4, 3), 3), ((1, 4, 5, 2), 4), ((1, 2, 3, 2), 5), ((1, 1, 6, 1), 2), ((1, 2, 2, 1), 9)],
)
def test_spatial_norm_is_the_formula(form, shape, size):
    x, cotangent = 3 * normal(*shape), normal(*shape, seed=1)
    options = {"size": size, "k": 1.0, "alpha": 0.05, "beta": 0.75}
    expected = functools.partial(spatial_by_loops, **options)
    with jax.enable_x64(True):
        norm = jax.jit(functools.partial(spatial_response_norm, differentiation=form, **options))
        np.testing.assert_allclose(norm(x), expected(x), rtol=1e-12)
        slope = central_differences(expected, x, cotangent)
        np.testing.assert_allclose(pull_back(norm, x, cotangent), slope, atol=1e-8)


def test_defaults_are_the_papers_and_those_of_cnorm2():
    x = 50 * normal(1, 4, 4, 7)
    paper = local_by_loops(x, 5, 2.0, 1e-4, 0.75)
    np.testing.assert_allclose(local_response_norm(jnp.float32(x)), paper, rtol=1e-5)
    code = spatial_by_loops(x, 5, 1.0, 1e-3 / 25, 0.75)
    np.testing.assert_allclose(spatial_response_norm(jnp.float32(x)), code, rtol=1e-5)


def test_an_even_window_reaches_further_back():
    impulse = jnp.zeros(9).at[4].set(1.0)
    probe = 1e-3 * jnp.ones(9) + impulse
    out = local_response_norm(probe, size=4, k=1.0, alpha=1.0)
    (felt,) = np.nonzero(np.asarray(out) < 0.9 * np.asarray(probe))
    assert felt.tolist() == [3, 4, 5, 6]  # c sees c - 2 ... c + 1


def test_groups_are_slices_normed_one_by_one():
    x, cotangent = 30 * normal(2, 3, 3, 12), normal(2, 3, 3, 12, seed=1)
    with jax.enable_x64(True):
        whole, back = jax.vjp(lambda x: local_response_norm(x, groups=3), x)
        gradient = back(cotangent)[0]
        for i in range(3):
            part = slice(4 * i, 4 * i + 4)
            out, back = jax.vjp(local_response_norm, x[..., part])
            np.testing.assert_allclose(whole[..., part], out, rtol=1e-14)
            np.testing.assert_allclose(gradient[..., part], back(cotangent[..., part])[0])
        assert not np.allclose(whole, local_response_norm(x), rtol=1e-5)


def test_nothing_leaks_over_a_groups_border():
    x = jnp.ones((1, 8)).at[0, 3].set(jnp.nan)
    assert np.isfinite(local_response_norm(x, groups=2)[0, 4:]).all()
    assert np.isfinite(jax.grad(lambda x: local_response_norm(x, groups=2).sum())(x)[0, 4:]).all()


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
    assert alpha_of_sum(1e-3, 9, "cuda_convnet") == pytest.approx(1.11e-4, rel=2e-3)  # 11 % net
    assert alpha_of_sum(5e-5, 3, "cuda_convnet", spatial=True) == pytest.approx(5e-5 / 9)  # 18 %


@pytest.mark.parametrize("norm", [local_response_norm, spatial_response_norm])
def test_autodiff_form_takes_every_transformation(norm):
    x, direction = normal(3, 2, 3, 4), normal(3, 2, 3, 4, seed=1)
    plain = functools.partial(norm, size=3, alpha=0.2, differentiation="autodiff")
    with jax.enable_x64(True):
        one = jax.jit(lambda x: jnp.sum(jnp.sin(plain(x))))
        curvature = jax.hessian(one)(x[0])
        for i in np.ndindex(x[0].shape):
            e = np.zeros_like(x[0])
            e[i] = 1e-5
            row = (jax.grad(one)(x[0] + e) - jax.grad(one)(x[0] - e)) / 2e-5
            np.testing.assert_allclose(curvature[i], row, atol=1e-8)
        slope = jax.vmap(lambda x, v: jax.jvp(one, (x,), (v,))[1])(x, direction)
        gradients = jax.vmap(jax.grad(one))(x)
        np.testing.assert_allclose(slope, np.sum(gradients * direction, (1, 2, 3)), rtol=1e-10)
        custom = jax.vmap(jax.grad(lambda x: jnp.sum(jnp.sin(norm(x, size=3, alpha=0.2)))))(x)
        np.testing.assert_allclose(custom, gradients, rtol=1e-10)


@pytest.mark.parametrize("norm", [local_response_norm, spatial_response_norm])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_types_are_kept_and_sums_are_wide(norm, dtype):
    with jax.enable_x64(True):
        # 300**2 is beyond float16.
        x = jnp.asarray(300 + normal(1, 3, 3, 6), dtype)
        wide = jnp.float64 if dtype == "float64" else jnp.float32
        for form in FORMS:
            out, back = jax.vjp(functools.partial(norm, differentiation=form), x)
            gradient = back(jnp.ones_like(x))[0]
            assert out.dtype == gradient.dtype == x.dtype
            exact, back = jax.vjp(norm, x.astype(wide))
            rounding = 2 * float(jnp.finfo(dtype).eps)
            np.testing.assert_allclose(out.astype(wide), exact, rtol=rounding)
            slope = back(jnp.ones_like(exact))[0]
            np.testing.assert_allclose(gradient.astype(wide), slope, rtol=4 * rounding)


@pytest.mark.parametrize("norm", [local_response_norm, spatial_response_norm])
def test_custom_form_keeps_only_its_input(norm):
    x = jnp.ones((2, 5, 5, 8), jnp.bfloat16)
    kept = {form: jax.vjp(functools.partial(norm, differentiation=form), x)[1] for form in FORMS}
    (only,) = (leaf for leaf in jax.tree.leaves(kept["custom"]) if np.ndim(leaf))
    assert only.dtype == x.dtype
    np.testing.assert_array_equal(only, x)
    sizes = [leaf.nbytes for leaf in jax.tree.leaves(kept["autodiff"]) if np.ndim(leaf)]
    assert sum(sizes) > only.nbytes


def test_a_window_over_all_channels_can_be_l2_normalisation():
    x = normal(3, 7)
    with jax.enable_x64(True):
        l2 = functools.partial(local_response_norm, size=15, k=0.0, alpha=1.0, beta=0.5)
        np.testing.assert_allclose(l2(x), x / np.sqrt((x**2).sum(-1, keepdims=True)), rtol=1e-12)
        # The output does not depend on the input's length.
        along = pull_back(l2, x, normal(3, 7, seed=1)) * x
        np.testing.assert_allclose(along.sum(-1), 0, atol=1e-12)
        assert np.isnan(l2(np.zeros(7))).all()
        assert np.isnan(pull_back(l2, np.zeros(7), np.ones(7))).all()
        kept = local_response_norm(np.zeros(7), size=15, k=1e-12, alpha=1.0, beta=0.5)
        np.testing.assert_array_equal(kept, 0)


def test_extreme_sums_neither_overflow_nor_vanish():
    for scale in (1e-15, 1e15):  # squares of 1e-30 and 1e30: their powers of 1.5 are no float32
        out = local_response_norm(jnp.full(1, scale), size=1, k=0.0, alpha=1.0)
        np.testing.assert_allclose(out, scale**-0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"differentiation": "fast"}, "differentiation='fast' is not one of 'custom', 'autodiff'"),
        ({"size": 0}, "size=0"),
        ({"groups": 4}, "groups=4 does not divide the 6 channels"),
        ({"groups": 0}, "groups=0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        local_response_norm(jnp.ones((2, 6)), **options)


def test_wrong_arrays_and_conventions_are_named():
    with pytest.raises(ValueError, match="rank >= 3"):
        spatial_response_norm(jnp.ones((2, 6)))
    with pytest.raises(ValueError, match="float array"):
        local_response_norm(jnp.ones((2, 6), jnp.int32))
    with pytest.raises(ValueError, match="convention='pytorch' is not one of 'sum', .*'torch'"):
        alpha_of_sum(1e-4, 5, "pytorch")
