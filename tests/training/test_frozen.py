"""Parameters whose rate is always 0: they stay, and take neither computation nor memory."""

import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from alexnet_jax.experiment import Experiment
from alexnet_jax.models import parameter_shapes
from alexnet_jax.models.summary import layer_table
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.optimizer import Optimizer
from alexnet_jax.training.schedule import Rate
from alexnet_jax.training.state import TrainState

CONVOLUTIONS, MIDDLE = "Conv/", "(conv2|fc4)/"
BATCH, CLASSES = 16, 7  # of the tiny model


@pytest.fixture(scope="module")
def frozen(tiny_experiment: Callable[..., Experiment]) -> Callable[..., Experiment]:
    """Returns (pattern, strategy, devices, ...) -> the tiny run with what matches frozen."""

    def make(pattern: str, *place: Any) -> Experiment:
        experiment = tiny_experiment(*place)
        rates = {"frozen": Rate(pattern, (), (0.0,)), **experiment.optimizer.rates}
        return dataclasses.replace(
            experiment, optimizer=dataclasses.replace(experiment.optimizer, rates=rates)
        )

    return make


@pytest.fixture(scope="module")
def program(frozen: Callable[..., Experiment]) -> Callable[..., jax.stages.Compiled]:
    """Returns (pattern, strategy, devices, ...) -> its compiled step."""

    @functools.cache
    def compiled(*arguments: Any) -> jax.stages.Compiled:
        experiment = frozen(*arguments)
        return experiment.compile_train_step(experiment.abstract_state())

    return compiled


STEPS = 4  # the last one is logged


@pytest.fixture(scope="module")
def after_steps(frozen: Any, program: Any, tiny_state: Any, tiny_batch: Any) -> Any:
    """Returns (pattern, strategy, devices, ...) -> states before and after, and the last log."""

    @functools.cache
    def run(*arguments: Any) -> tuple[TrainState, TrainState, dict[str, Any]]:
        experiment, step = frozen(*arguments), one_at_a_time(program(*arguments))
        before = experiment.initial_state(jax.device_get(tiny_state().statistics))
        state = jax.tree.map(jnp.copy, before)
        for number in range(STEPS):
            state, log = step(state, put_batch(tiny_batch(number), experiment.mesh))
        return before, state, jax.device_get(log)

    return run


def named(tree: Any) -> dict[str, np.ndarray]:
    return {"/".join(path): np.asarray(array) for path, array in flatten_dict(tree).items()}


def is_frozen(pattern: str, name: str) -> bool:
    """Of a parameter such as conv1/kernel."""
    kind = "Conv" if name.startswith("conv") else "Dense"
    return bool(re.search(pattern, f"{kind}/{name}"))


@pytest.mark.parametrize(
    ("pattern", "strategy", "devices", "accumulate"),
    [
        (CONVOLUTIONS, "single", 1, 1),
        (MIDDLE, "tower", 2, 2),
        *(
            pytest.param(pattern, strategy, devices, 1, marks=pytest.mark.slow)
            for strategy, devices in (("data", 2), ("tower", 4), ("hybrid", 2), ("stage", 2))
            for pattern in (CONVOLUTIONS, MIDDLE)
        ),
    ],
)
def test_only_the_others_are_trained(
    pattern: str,
    strategy: str,
    devices: int,
    accumulate: int,
    after_steps: Any,
    tiny_step: Any,
    tiny_state: Any,
    tiny_batch: Any,
) -> None:
    """They change as in a run that trains all, where the frozen are put back after each step."""
    before, after, log = after_steps(pattern, strategy, devices, accumulate)
    start, expected = named(before.params), tiny_state()
    for number in range(STEPS):
        trained, _ = tiny_step()(expected, tiny_batch(number))
        params = {
            name: jnp.asarray(start[name]) if is_frozen(pattern, name) else array
            for name, array in flatten_dict(trained.params, sep="/").items()
        }
        expected = dataclasses.replace(trained, params=unflatten_dict(params, sep="/"))
    found, expected = named(after.params), named(expected.params)
    for name, array in start.items():
        norms = log["norms"][name]
        if is_frozen(pattern, name):
            np.testing.assert_array_equal(found[name], array, err_msg=name)
            assert norms["gradient"] == norms["update"] == 0 < norms["parameter"] + 1e-9
        else:
            moved = np.linalg.norm(expected[name] - array)
            assert np.linalg.norm(found[name] - expected[name]) < 1e-3 * moved, name
            assert norms["gradient"] > 0
    assert log["learning_rates"]["frozen"] == 0


def test_they_take_no_computation(program: Any, tiny_program: Any, tiny_spec: Any) -> None:
    """No multiplication is left but those of the forward pass and of what is trained."""
    macs = {row.name: row.macs for row in layer_table(tiny_spec, CLASSES)}
    needed = sum(macs[f"conv{n}"] for n in (1, 2, 3)) + 2 * macs["fc4"] + 3 * macs["fc5"]
    flops = {
        name: compiled.cost_analysis()["flops"]
        for name, compiled in (
            ("full", tiny_program("single", 1, 1)),
            ("frozen", program(CONVOLUTIONS, "single", 1, 1)),
        )
    }
    assert flops["frozen"] < 1.25 * 2 * BATCH * needed
    assert flops["frozen"] < 0.5 * flops["full"]


def test_they_have_no_velocity(frozen: Any) -> None:
    state = frozen(CONVOLUTIONS, "single", 1, 1).abstract_state()
    of_optimizer = {array.shape for array in jax.tree.leaves(state.opt_state)}
    assert of_optimizer == {
        array.shape for name in ("fc4", "fc5") for array in state.params[name].values()
    }


def test_their_state_is_saved_and_restored(frozen: Any, after_steps: Any, tmp_path: Path) -> None:
    arguments = (CONVOLUTIONS, "single", 1, 1)
    _, state, _ = after_steps(*arguments)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state, {}, top1=None)
    checkpoints.verify(wait=True)
    restored = checkpoints.restore(STEPS, frozen(*arguments).abstract_state())
    checkpoints.close()
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for saved, found in zip(
        jax.tree.leaves(state.opt_state), jax.tree.leaves(restored.opt_state), strict=True
    ):
        np.testing.assert_array_equal(saved, found)


def test_a_rate_that_becomes_0_does_not_freeze(tiny_spec: Any) -> None:
    """As that of conv1 in the authors' run; a rate of 0 at every step does."""
    rows = {
        "falls": Rate("conv1/", (5,), (0.1, 0.0)),
        "stays": Rate("conv2/", (5,), (0.0, 0.0)),
        "plateau": Rate("conv3/", (), (0.0,), follows_plateau=True),
        "others": Rate("", (), (0.1,)),
    }
    optimizer = Optimizer(0.9, 0.0, "kernel", True, rows)
    trained = optimizer.is_trained(tiny_spec, parameter_shapes(tiny_spec))
    assert {name for name, flags in trained.items() if any(flags.values())} == {
        *("conv1", "fc4", "fc5"),
    }
