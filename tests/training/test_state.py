"""The state at step 0, its shapes and its shardings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.parallel.mesh import make_layout, parameter_specs
from alexnet_jax.training.state import TrainState, create_state

STATISTICS = {"mean": np.full((14, 14, 1), 100, np.float32)}


@pytest.fixture(scope="module")
def initial(tiny_experiment: Any) -> Any:
    experiment = tiny_experiment()
    return jax.jit(
        lambda seed: create_state(experiment.model, experiment.optimizer, STATISTICS, seed)
    )


def bits(array: jax.Array) -> bytes:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jax.random.key_data(array)
    return np.asarray(array).tobytes()


def test_a_run_starts_at_zero(initial: Any) -> None:
    state: TrainState = initial(0)
    assert (state.step.dtype, int(state.step)) == (jnp.int32, 0)
    assert int(state.first_bad_step) == -1
    assert state.window.means() == {"loss": 0.0, "top1": 0.0, "top5": 0.0, "count": 0}
    assert (float(state.plateau.scale), int(state.plateau.num_bad_evals)) == (1.0, 0)
    assert not any(np.asarray(array).any() for array in jax.tree.leaves(state.opt_state))
    np.testing.assert_array_equal(state.statistics["mean"], STATISTICS["mean"])
    assert jnp.issubdtype(state.key.dtype, jax.dtypes.prng_key)


def test_the_seed_fixes_weights_and_later_draws(initial: Any) -> None:
    some, same, other = (
        [bits(array) for array in jax.tree.leaves((state.params, state.key))]
        for state in (initial(5), initial(5), initial(6))
    )
    assert some == same
    kernels = [i for i, array in enumerate(jax.tree.leaves(initial(5).params)) if array.ndim > 1]
    assert all(some[i] != other[i] for i in (*kernels, -1))


def test_towers_shard_all_that_two_divides(tiny_experiment: Any) -> None:
    """Parameters and velocities by their last axis; seven classes, and the rest, are replicated."""
    experiment = tiny_experiment("tower", 4)
    state = experiment.abstract_state()
    for path, array in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        part = array.sharding.shard_shape(array.shape)
        if ("params" in name or "velocity" in name) and "fc5" not in name:
            assert part == (*array.shape[:-1], array.shape[-1] // 2), name
        else:
            assert part == array.shape, name


def test_data_parallel_states_are_replicated(initial: Any, tiny_spec: Any) -> None:
    specs = parameter_specs(initial(0), tiny_spec, make_layout("data", 4))
    assert {tuple(spec) for spec in jax.tree.leaves(specs)} == {()}


@pytest.mark.parametrize(("strategy", "devices"), [("single", 1), ("data", 4), ("tower", 4)])
def test_the_abstract_state_is_that_of_a_real_one(
    strategy: str, devices: int, tiny_experiment: Any, tiny_state: Any
) -> None:
    """What a checkpoint is restored to: shapes, types and shardings; values play no part."""
    abstract = tiny_experiment(strategy, devices).abstract_state()
    state = tiny_state(strategy, devices)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    for shape, array in zip(jax.tree.leaves(abstract), jax.tree.leaves(state), strict=True):
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)
        assert shape.sharding.is_equivalent_to(array.sharding, array.ndim)
