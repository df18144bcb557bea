"""Every strategy trains the same model: numbers against one device, and sharding of arrays."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.evaluation.step import VIEWS, jit_eval_step
from alexnet_jax.models import ModelSpec, create_model, layers
from alexnet_jax.parallel.mesh import make_layout, parameter_specs, put_batch, shardings
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.state import TrainState

STRATEGIES = [
    *(("data", 2), ("data", 4), ("tower", 2), ("tower", 4)),
    *(("hybrid", 2), ("hybrid", 4), ("stage", 2), ("stage", 4)),
]
STEPS = 10

Flat = dict[str, np.ndarray]


def flat(tree: Any) -> Flat:
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(array, np.float64)
        for path, array in jax.tree_util.tree_leaves_with_path(tree)
    }


@dataclasses.dataclass
class Trained:
    """What a strategy computed: after each step the parameters, velocity, statistics and loss."""

    states: list[Flat]
    losses: list[float]
    norms: dict[str, float]  # of the last logged step
    last: TrainState


@pytest.fixture(scope="module")
def train(tiny_experiment: Any, tiny_state: Any, tiny_step: Any, tiny_batch: Any) -> Any:
    """Returns (strategy, devices, accumulate) -> ten steps, dropout and augmentation on."""

    @functools.cache
    def run(strategy: str, devices: int, accumulate: int = 1) -> Trained:
        experiment = tiny_experiment(strategy, devices)
        state, step = tiny_state(strategy, devices), tiny_step(strategy, devices, accumulate)
        states, losses, norms = [], [], {}
        for number in range(STEPS):
            state, log = step(state, tiny_batch(number))
            states.append(flat((state.params, state.opt_state, state.batch_stats)))
            losses.append(float(log["window"].loss))
            if (number + 1) % experiment.durations.log_every == 0:
                norms = {name: float(norm) for name, norm in flat(log["norms"]).items()}
        return Trained(states, losses, norms, state)

    return run


def assert_close(some: Flat, others: Flat, tolerance: float) -> None:
    """Each array's difference is small next to its norm."""
    assert some.keys() == others.keys()
    for name in some:
        difference = np.linalg.norm(some[name] - others[name])
        assert difference <= tolerance * np.linalg.norm(others[name]), name


@pytest.mark.parametrize(
    ("strategy", "devices", "accumulate"),
    [
        *(("data", 2, 1), ("hybrid", 2, 1), ("stage", 2, 1), ("tower", 2, 1)),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                *((strategy, 4, 1) for strategy in ("data", "tower", "hybrid", "stage")),
                *((strategy, 2, 2) for strategy in ("data", "tower", "hybrid", "stage")),
                *((strategy, 2, 4) for strategy in ("data", "tower", "hybrid", "stage")),
                ("single", 1, 4),
            )
        ),
    ],
)
def test_numbers_are_those_of_one_device(
    strategy: str, devices: int, accumulate: int, train: Any
) -> None:
    """The whole step. After one the velocity is the gradient times the rate: factors would show."""
    ours, one = train(strategy, devices, accumulate), train("single", 1)
    assert_close(ours.states[0], one.states[0], 1e-5)
    assert_close(ours.states[-1], one.states[-1], 1e-4)
    np.testing.assert_allclose(ours.losses, one.losses, rtol=1e-5)
    assert ours.norms == pytest.approx(one.norms, rel=1e-4)


def test_a_run_resumes_under_another_strategy(
    train: Any,
    tiny_experiment: Any,
    tiny_state: Any,
    tiny_step: Any,
    tiny_batch: Any,
    tmp_path: Any,
) -> None:
    """Saved and restored under each in turn, it ends as on one device."""
    layouts = [("stage", 2), ("hybrid", 2), ("data", 2), ("tower", 2), ("single", 1)]
    checkpoints = Checkpoints(tmp_path)
    state = tiny_state(*layouts[0])
    for number in range(STEPS):
        layout = layouts[number // 2]
        if number and number % 2 == 0:
            state = checkpoints.restore(number, tiny_experiment(*layout).abstract_state())
        state, _ = tiny_step(*layout)(state, tiny_batch(number))
        if number % 2:
            checkpoints.save(state, {}, None)
            checkpoints.verify(wait=True)
    checkpoints.close()
    one = train("single", 1).states[-1]
    assert_close(flat((state.params, state.opt_state, state.batch_stats)), one, 1e-4)


@pytest.fixture(scope="module")
def predictions(train: Any, tiny_experiment: Any, tiny_batch: Any) -> Any:
    """Returns (view, strategy, devices) -> those of the model that one device trained.

    Two of 16 rows are left out.
    """
    state = train("single", 1).last
    mask = np.ones(16, np.float32)
    mask[[3, 15]] = 0

    @functools.cache
    def predict(view: str, strategy: str, devices: int) -> Predictions:
        experiment = tiny_experiment(strategy, devices)
        step = jit_eval_step(
            experiment.model, experiment.augmentation, experiment.layout, view=view
        )
        sharded = jax.device_put(
            jax.device_get(state.variables),
            shardings(
                parameter_specs(state.variables, experiment.model.spec, experiment.layout),
                experiment.mesh,
            ),
        )
        batch = put_batch(tiny_batch(99)._replace(mask=mask), experiment.mesh)
        found = jax.device_get(step(sharded, jax.device_get(state.statistics), batch))
        return found.take(found.mask)

    return predict


SHOWN_FAST = [("center", "stage", 2), ("ten_crops", "hybrid", 2), ("dense", "tower", 2)]


@pytest.mark.parametrize(
    ("view", "strategy", "devices"),
    [
        case if case in SHOWN_FAST else pytest.param(*case, marks=pytest.mark.slow)
        for case in ((view, *strategy) for view in VIEWS for strategy in STRATEGIES)
    ],
)
def test_evaluation_is_that_of_one_device(
    view: str, strategy: str, devices: int, predictions: Any
) -> None:
    ours, one = predictions(view, strategy, devices), predictions(view, "single", 1)
    assert len(ours) == len(one) == 14
    for name in ("example_index", "labels", "ranks", "classes"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(one, name), err_msg=name)
    for name in ("log_probabilities", "probabilities"):
        np.testing.assert_allclose(getattr(ours, name), getattr(one, name), rtol=1e-5, atol=1e-6)


def test_the_run_changes_every_parameter(train: Any, tiny_state: Any) -> None:
    """Otherwise the comparisons above would compare nothing."""
    last, first = train("single", 1).states[-1], flat(tiny_state().params)
    for name, before in first.items():
        after = last[f"0/{name}"]
        assert np.linalg.norm(after - before) > 1e-3 * np.linalg.norm(after), name


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_tower_holds_half_of_parameters_and_velocity(devices: int, train: Any) -> None:
    """After ten steps; the last layer, of an odd number of classes, is replicated."""
    state = train("tower", devices).last
    held = {device.id: 0 for device in jax.devices()[:devices]}
    arrays = jax.tree.leaves((state.params, state.opt_state))
    for array in arrays:
        for shard in array.addressable_shards:
            held[shard.device.id] += shard.data.size
    whole = sum(array.size for array in arrays)
    last_layer = 2 * (16 * 7 + 7)
    assert set(held.values()) == {(whole - last_layer) // 2 + last_layer}
    assert max(held.values()) < 0.55 * whole


def test_a_tower_holds_half_of_the_papers_model() -> None:
    model = create_model("paper")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    layout = make_layout("tower", 2)
    sharded = shardings(parameter_specs(params, model.spec, layout), layout.mesh)
    held = jax.tree.map(lambda a, sharding: np.prod(sharding.shard_shape(a.shape)), params, sharded)
    assert sum(jax.tree.leaves(held)) == 60_965_224 // 2


def test_a_state_is_created_the_same_on_any_mesh(tiny_experiment: Any, tiny_state: Any) -> None:
    here = tiny_state()
    there = tiny_experiment("tower", 2).initial_state(jax.device_get(here.statistics))
    ours, theirs = flat((here.params, here.opt_state)), flat((there.params, there.opt_state))
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    np.testing.assert_array_equal(jax.random.key_data(here.key), jax.random.key_data(there.key))


@pytest.mark.parametrize(
    ("strategy", "devices", "shape"),
    [
        ("single", 1, (1, 1)),
        ("single", None, (1, 1)),
        ("data", 3, (3, 1)),
        ("data", None, (4, 1)),
        ("tower", 2, (1, 2)),
        ("tower", 4, (2, 2)),
        ("hybrid", 4, (4, 1)),
        ("stage", 4, (2, 2)),
    ],
)
def test_meshes(strategy: str, devices: int | None, shape: tuple[int, int]) -> None:
    mesh = make_layout(strategy, devices).mesh
    assert mesh.axis_names == ("data", "tower")
    assert mesh.devices.shape == shape


def test_parameters_are_sharded_by_strategy_and_kind() -> None:
    """Whatever the names are; what the devices do not divide is replicated."""
    spec = ModelSpec(
        8, 1, (layers.Conv("fc0", 8, 3), layers.Dense("out", 8), layers.Dense("odd", 7))
    )
    arrays = {
        "velocity": {
            "fc0": {"kernel": np.zeros((3, 3, 1, 8)), "bias": np.zeros(8)},
            "out": {"kernel": np.zeros((512, 8)), "bias": np.zeros(8)},
            "odd": {"kernel": np.zeros((8, 7)), "bias": np.zeros(7)},
        },
        "count": np.zeros(()),
    }

    def sharded(strategy: str, devices: int) -> dict[str, P]:
        specs = parameter_specs(arrays, spec, make_layout(strategy, devices))
        return {name: part for name, part in flat_specs(specs).items() if part != P()}

    dense = {"velocity/out/kernel": P(None, "data"), "velocity/out/bias": P("data")}
    assert sharded("hybrid", 4) == dense
    assert sharded("tower", 2) == {
        "velocity/fc0/kernel": P(None, None, None, "tower"),
        "velocity/fc0/bias": P("tower"),
        "velocity/out/kernel": P(None, "tower"),
        "velocity/out/bias": P("tower"),
    }
    for strategy, devices in (("data", 2), ("stage", 2), ("single", 1), ("hybrid", 1)):
        assert sharded(strategy, devices) == {}


def flat_specs(specs: Any) -> dict[str, P]:
    leaves = jax.tree_util.tree_leaves_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, P))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): part for path, part in leaves}


@pytest.mark.parametrize(("strategy", "devices", "rows"), [("data", 4, 4), ("tower", 4, 8)])
def test_a_batch_is_sharded_over_the_data_axis(
    strategy: str, devices: int, rows: int, tiny_batch: Any
) -> None:
    batch = tiny_batch(0)
    placed = put_batch(batch, make_layout(strategy, devices).mesh)
    for name, array, given in zip(batch._fields, placed, batch, strict=True):
        np.testing.assert_array_equal(array, given, err_msg=name)
        assert {shard.data.shape[0] for shard in array.addressable_shards} == {rows}
