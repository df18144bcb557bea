"""The update rules step by step, against numpy and against Optax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.models.layers import BatchNorm, Conv, Dense, ModelSpec
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.schedule import Rate

RNG = np.random.default_rng(0)
SPEC = ModelSpec(4, 2, (Conv("conv1", 4, 3), BatchNorm("bn"), Dense("fc2", 5)))
SHAPES = {"conv1": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "fc2": {"kernel": (4, 5), "bias": (5,)}}
MOMENTUM, DECAY = 0.9, 0.0005

Tree = dict[str, dict[str, Any]]


def make_rule(inside: bool = True, decay: float = DECAY, pattern: str = "kernel") -> Any:
    return Optimizer(MOMENTUM, decay, pattern, inside, rates={}).rule(SPEC)


def tree(make: Any) -> Tree:
    return {
        layer: {name: make(layer, name, shape) for name, shape in row.items()}
        for layer, row in SHAPES.items()
    }


def random_tree() -> Tree:
    return tree(lambda layer, name, shape: RNG.normal(size=shape).astype(np.float32))


def rates(weights: float, biases: float) -> Tree:
    return tree(lambda layer, name, shape: jnp.float32(biases if name == "bias" else weights))


def run(rule: Any, params: Tree, gradients: list[Tree], schedule: list[Tree]) -> list[Tree]:
    """Returns the parameters after each step."""
    state = rule.init(params)

    @jax.jit
    def step(params: Tree, state: Any, gradients: Tree, rates: Tree) -> tuple[Tree, Any]:
        updates, state = rule.update(gradients, state, params, rates=rates)
        return optax.apply_updates(params, updates), state

    trajectory = []
    for gradient, rate in zip(gradients, schedule, strict=True):
        params, state = step(params, state, gradient, rate)
        trajectory.append(jax.device_get(params))
    return trajectory


def paper_in_numpy(w: np.ndarray, gradients: list, schedule: list, decay: float) -> list:
    """v <- 0.9 v - decay e w - e g; w <- w + v, in float64 (section 5)."""
    w, trajectory = w.astype(np.float64), []
    v = np.zeros_like(w)
    for g, e in zip(gradients, schedule, strict=True):
        v = 0.9 * v - decay * e * w - e * g
        w = w + v
        trajectory.append(w)
    return trajectory


def test_rate_inside_velocity_is_the_papers_formula() -> None:
    """The weights' rate falls tenfold; biases have twice the rate, which stays, and no decay."""
    params, gradients = random_tree(), [random_tree() for _ in range(12)]
    weight_rates = [0.1] * 6 + [0.01] * 6
    found = run(make_rule(), params, gradients, [rates(rate, 0.2) for rate in weight_rates])
    for layer, row in SHAPES.items():
        for name in row:
            is_bias = name == "bias"
            expected = paper_in_numpy(
                params[layer][name],
                [gradient[layer][name] for gradient in gradients],
                [0.2] * 12 if is_bias else weight_rates,
                0.0 if is_bias else DECAY,
            )
            for step, (actual, wanted) in enumerate(zip(found, expected, strict=True)):
                np.testing.assert_allclose(
                    actual[layer][name], wanted, atol=2e-6, err_msg=f"{layer}/{name} {step}"
                )


def test_decay_alone_shrinks_kernels_and_leaves_biases() -> None:
    params = random_tree()
    zeros = jax.tree.map(np.zeros_like, params)
    (found,) = run(make_rule(), params, [zeros], [rates(0.5, 1.0)])
    for layer in SHAPES:
        np.testing.assert_allclose(
            found[layer]["kernel"], params[layer]["kernel"] * (1 - 0.5 * DECAY), rtol=1e-6
        )
        np.testing.assert_array_equal(found[layer]["bias"], params[layer]["bias"])


def test_rate_outside_velocity_is_sgd_of_optax() -> None:
    params, gradients = random_tree(), [random_tree() for _ in range(8)]
    schedule = [0.1] * 4 + [0.01] * 4
    found = run(make_rule(False), params, gradients, [rates(rate, rate) for rate in schedule])
    mask = tree(lambda layer, name, shape: name == "kernel")
    reference = optax.chain(
        optax.add_decayed_weights(DECAY, mask=mask),
        optax.sgd(lambda count: jnp.array(schedule)[count], momentum=MOMENTUM),
    )
    state = reference.init(params)
    for step, gradient in enumerate(gradients):
        updates, state = reference.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            found[step],
            params,
        )


@pytest.mark.parametrize(("inside", "expected"), [(True, -0.2539), (False, -0.03439)])
def test_the_rules_differ_after_a_rate_drop(inside: bool, expected: float) -> None:
    """Three steps of gradient 1 at rate 0.1, then 0.01: the next updates differ sevenfold."""
    rule = make_rule(inside, decay=0.0)
    params = {"fc2": {"kernel": jnp.zeros(())}}
    state, gradient = rule.init(params), {"fc2": {"kernel": jnp.ones(())}}
    for rate in (0.1, 0.1, 0.1, 0.01):
        updates, state = rule.update(
            gradient, state, params, rates={"fc2": {"kernel": jnp.float32(rate)}}
        )
    assert float(updates["fc2"]["kernel"]) == pytest.approx(expected, rel=1e-5)


def test_a_rate_of_0_freezes_parameter_and_velocity() -> None:
    """No decay, no gradient, no momentum; with a rate again, the update goes on from there."""
    rule = make_rule()
    params = random_tree()
    state = rule.init(params)
    both, half = rates(0.1, 0.2), rates(0.1, 0.2)
    half["conv1"]["kernel"] = jnp.float32(0)
    updates, state = rule.update(random_tree(), state, params, rates=both)
    params = optax.apply_updates(params, updates)
    (before,) = (part.velocity for part in state if hasattr(part, "velocity"))
    updates, state = rule.update(random_tree(), state, params, rates=half)
    after = optax.apply_updates(params, updates)
    (velocity,) = (part.velocity for part in state if hasattr(part, "velocity"))
    for layer, row in SHAPES.items():
        for name in row:
            frozen = (layer, name) == ("conv1", "kernel")
            same = np.array_equal(before[layer][name], velocity[layer][name])
            assert same == frozen, (layer, name)
            assert np.array_equal(params[layer][name], after[layer][name]) == frozen
    gradient = random_tree()
    updates, _ = rule.update(gradient, state, after, rates=both)
    w, v = (np.asarray(x["conv1"]["kernel"], np.float64) for x in (after, before))
    expected = -(0.9 * v + 0.1 * (gradient["conv1"]["kernel"] + DECAY * w))
    np.testing.assert_allclose(updates["conv1"]["kernel"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("conv|bias", {"conv1/kernel", "conv1/bias", "fc2/bias"}),
        ("^Dense/", {"fc2/kernel", "fc2/bias"}),
        ("no such", set()),
    ],
)
def test_decay_pattern_selects_parameters(pattern: str, expected: set[str]) -> None:
    params = random_tree()
    rule = make_rule(pattern=pattern)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = rule.update(zeros, rule.init(params), params, rates=rates(1, 1))
    moved = {
        f"{layer}/{name}"
        for layer in SHAPES
        for name in SHAPES[layer]
        if updates[layer][name].any()
    }
    assert moved == expected


def test_the_first_row_that_matches_gives_the_rate() -> None:
    """A batch norm takes the row of its kind, whatever its name."""
    patterns = {"special": "fc2/k", "norms": "Norm/", "weights": "kernel", "biases": "bias"}
    rows = {
        name: Rate(pattern, (), (float(index + 1),))
        for index, (name, pattern) in enumerate(patterns.items())
    }
    optimizer = Optimizer(MOMENTUM, DECAY, "kernel", True, rows)
    params = random_tree() | {"bn": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}
    by_row, by_parameter = optimizer.rates_at(SPEC, params, jnp.int32(0), jnp.float32(1))
    assert by_row == {"special": 1, "norms": 2, "weights": 3, "biases": 4}
    assert by_parameter == {
        "conv1": {"kernel": 3, "bias": 4},
        "bn": {"scale": 2, "bias": 2},
        "fc2": {"kernel": 1, "bias": 4},
    }
