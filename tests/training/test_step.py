"""The train step and the evaluation step of a very small model, checked with numpy."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alexnet_jax.data.pipeline import Batch
from alexnet_jax.evaluation.step import jit_eval_step
from alexnet_jax.models import AlexNet
from alexnet_jax.models.layers import Dropout
from alexnet_jax.parallel.mesh import one_at_a_time, put_batch
from alexnet_jax.preprocessing import augment
from alexnet_jax.preprocessing.color import ColorNoise
from alexnet_jax.training.metrics import Metrics
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.step import make_loss

MOMENTUM, DECAY = 0.9, 0.0005
RATES = {"kernel": 0.01, "bias": 0.02}

Flat = dict[str, np.ndarray]


def flat(tree: Any) -> Flat:
    return {
        f"{layer}/{name}": np.asarray(array, np.float64)
        for layer, row in tree.items()
        for name, array in row.items()
    }


def velocity(state: TrainState) -> Flat:
    (found,) = (part.velocity for part in state.opt_state if hasattr(part, "velocity"))
    return flat(found)


def gradients(before: TrainState, after: TrainState, scale: float = 1.0) -> Flat:
    """Solves the velocity's formula, v <- 0.9 v + e (g + decay w), for the gradient."""
    old, new, params = velocity(before), velocity(after), flat(before.params)
    found = {}
    for name in old:
        kind = name.split("/")[1]
        found[name] = (new[name] - MOMENTUM * old[name]) / (RATES[kind] * scale)
        if kind == "kernel":
            found[name] -= DECAY * params[name]
    return found


def copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def steered(state: TrainState, scale: float) -> TrainState:
    """All learning rates times `scale` from here on."""
    plateau = dataclasses.replace(state.plateau, scale=jnp.full_like(state.plateau.scale, scale))
    return dataclasses.replace(state, plateau=plateau)


def assert_same(some: Any, others: Any) -> None:
    """Equal bit for bit."""
    assert jax.tree.structure(some) == jax.tree.structure(others)
    for a, b in zip(jax.tree.leaves(some), jax.tree.leaves(others), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def assert_close(some: Flat, others: Flat, tolerance: float) -> None:
    """Each array's difference is small next to its norm."""
    assert some.keys() == others.keys()
    for name in some:
        difference = np.linalg.norm(some[name] - others[name])
        assert difference <= tolerance * np.linalg.norm(others[name]), name


@pytest.fixture(scope="module")
def step(tiny_step: Callable[..., Any]) -> Callable[..., tuple[TrainState, dict[str, Any]]]:
    """The step; it keeps the state it is given."""
    compiled = tiny_step()
    return lambda state, batch: compiled(copy(state), batch)


@pytest.fixture(scope="module")
def run(step: Any, tiny_state: Any, tiny_batch: Any) -> tuple[list[TrainState], list[dict]]:
    """The states before and after each of nine steps, and the nine logs."""
    states, logs = [tiny_state()], []
    for number in range(9):
        state, log = step(states[-1], tiny_batch(number))
        states.append(state)
        logs.append(jax.device_get(log))
    return states, logs


def test_norms_are_those_of_numpy_at_logged_steps_only(run: Any) -> None:
    states, logs = run
    for number, log in enumerate(logs, start=1):
        if number % 4:
            assert not any(jax.tree.leaves(log["norms"])), number
            continue
        before, after = states[number - 1 : number + 1]
        expected = {
            "gradient": gradients(before, after),
            "parameter": flat(before.params),
            "update": velocity(after),
        }
        assert log["norms"].keys() == expected["gradient"].keys()
        for name, row in log["norms"].items():
            assert row == {
                kind: pytest.approx(np.linalg.norm(arrays[name]), rel=1e-4)
                for kind, arrays in expected.items()
            }


def test_parameters_change_by_the_velocity(run: Any) -> None:
    states, _ = run
    for before, after in itertools.pairwise(states):
        moved = velocity(after)
        for name, old in flat(before.params).items():
            new = flat(after.params)[name]
            np.testing.assert_allclose(new, old - moved[name], atol=2e-7)


def test_gradient_is_the_slope_of_the_loss(step: Any, run: Any, tiny_batch: Any) -> None:
    """By central differences of the step's own mean loss, one layer at a time."""
    states, _ = run
    state, batch = dataclasses.replace(states[4], window=Metrics.zero()), tiny_batch(4)
    slopes = gradients(state, step(state, batch)[0])

    def loss(params: Any) -> float:
        return step(dataclasses.replace(state, params=params), batch)[1]["window"].means()["loss"]

    for name in ("conv1/kernel", "conv2/kernel", "conv3/bias", "fc4/kernel", "fc5/bias"):
        layer, kind = name.split("/")
        norm = np.linalg.norm(slopes[name])
        size = 3e-3 * max(np.linalg.norm(state.params[layer][kind]), 1.0)
        direction = jnp.asarray(slopes[name] / norm * size, jnp.float32)
        there, back = (
            state.params | {layer: state.params[layer] | {kind: array}}
            for array in (
                state.params[layer][kind] + direction,
                state.params[layer][kind] - direction,
            )
        )
        found = (loss(there) - loss(back)) / (2 * size)
        assert found == pytest.approx(norm, rel=0.02), name


def test_the_window_adds_up_and_restarts_after_a_log_line(step: Any, run: Any, tiny_batch: Any):
    states, logs = run
    assert [int(log["window"].count) for log in logs] == [16, 32, 48, 64] * 2 + [16]
    total = 0.0
    for number, log in enumerate(logs):
        alone = dataclasses.replace(states[number], window=Metrics.zero())
        loss = float(step(alone, tiny_batch(number))[1]["window"].loss)
        total = loss if number % 4 == 0 else total + loss
        assert float(log["window"].loss) == pytest.approx(total, rel=1e-6)


def test_learning_rates_are_logged_and_reach_their_parameters(run: Any, step: Any, tiny_batch: Any):
    states, logs = run
    assert {n: float(rate) for n, rate in logs[0]["learning_rates"].items()} == pytest.approx(
        {"weights": 0.01, "biases": 0.02}
    )
    state, log = step(steered(states[3], 0.1), tiny_batch(3))
    assert {n: float(rate) for n, rate in log["learning_rates"].items()} == pytest.approx(
        {"weights": 0.001, "biases": 0.002}
    )
    assert_close(
        gradients(states[3], state, scale=0.1), gradients(states[3], states[4]), tolerance=1e-3
    )


def test_rates_of_0_change_only_the_step(run: Any, step: Any, tiny_batch: Any) -> None:
    before = steered(run[0][5], 0.0)
    after, _ = step(before, tiny_batch(5))
    assert_same(after.params, before.params)
    assert_same(after.opt_state, before.opt_state)
    assert int(after.step) == int(before.step) + 1


def test_a_step_is_a_pure_function_that_donates(tiny_step: Any, run: Any, tiny_batch: Any) -> None:
    states, _ = run
    given = copy(states[2])
    again, _ = tiny_step()(given, tiny_batch(2))
    assert_same(again, states[3])
    assert all(array.is_deleted() for array in jax.tree.leaves(given.params))


def test_draws_depend_on_the_key_and_the_position_in_the_stream(
    step: Any, run: Any, tiny_batch: Any
) -> None:
    """Not on the row: a batch in another order gives the same gradient. Nor on the step."""
    state = run[0][4]
    batch = tiny_batch(4)
    expected = gradients(state, step(state, batch)[0])
    order = np.random.default_rng(0).permutation(len(batch.labels))
    shuffled = Batch(*(array[order] for array in batch))
    assert_close(gradients(state, step(state, shuffled)[0]), expected, 1e-4)
    later = dataclasses.replace(state, step=state.step + 1)
    assert_same(step(later, batch)[0].params, step(state, batch)[0].params)
    elsewhere = batch._replace(stream_position=batch.stream_position + np.uint32(1000))
    other_key = dataclasses.replace(state, key=jax.random.key(123))
    for changed in (step(state, elsewhere)[0], step(other_key, batch)[0]):
        found = gradients(state, changed)["fc4/kernel"]
        assert np.linalg.norm(found - expected["fc4/kernel"]) > 0.1 * np.linalg.norm(found)


def test_the_loss_is_the_mean_over_readable_images(step: Any, run: Any, tiny_batch: Any) -> None:
    """The gradient of the whole is the mean of those of its halves; masked images do nothing."""
    state, batch = run[0][4], tiny_batch(4)
    halves = []
    for first in (1.0, 0.0):
        mask = np.repeat([first, 1 - first], len(batch.labels) // 2).astype(np.float32)
        part = batch._replace(mask=mask)
        after, log = step(state, part)
        assert int(log["window"].count) == 8
        halves.append(gradients(state, after))
        black = part._replace(images=part.images * mask[:, None, None, None].astype(np.uint8))
        assert_same(step(state, black)[0], after)
    whole = gradients(state, step(state, batch)[0])
    assert_close({n: (halves[0][n] + halves[1][n]) / 2 for n in whole}, whole, 1e-4)


def test_a_batch_of_unreadable_images_is_harmless(step: Any, run: Any, tiny_batch: Any) -> None:
    state = run[0][4]
    after, log = step(state, tiny_batch(4)._replace(mask=np.zeros(16, np.float32)))
    assert int(log["first_bad_step"]) == -1
    assert log["window"].means() == {"loss": 0.0, "top1": 0.0, "top5": 0.0, "count": 0}
    scale = np.linalg.norm(flat(state.params)["fc4/kernel"])
    assert np.linalg.norm(gradients(state, after)["fc4/kernel"]) < 1e-5 * scale


@pytest.mark.parametrize("cause", ["mean", "rate"])
def test_the_first_bad_step_is_kept(cause: str, run: Any, step: Any, tiny_batch: Any) -> None:
    state = good = run[0][2]
    if cause == "mean":
        mean = good.statistics["mean"].at[3, 3].set(jnp.nan)
        state = dataclasses.replace(good, statistics={"mean": mean})
    else:
        state = steered(good, 1e38)
    reported = []
    for number in range(3, 6):
        state, log = step(state, tiny_batch(number))
        assert int(state.first_bad_step) == int(log["first_bad_step"])
        reported.append(int(state.first_bad_step))
    # An absurd rate shows in the update itself, or in the loss a step later.
    assert reported in ([[3, 3, 3]] if cause == "mean" else [[3, 3, 3], [-1, 4, 4]])
    healed = dataclasses.replace(good, first_bad_step=state.first_bad_step)
    assert int(step(healed, tiny_batch(3))[1]["first_bad_step"]) == reported[-1]


def test_evaluation_sees_center_crops_without_dropout(
    run: Any, tiny_experiment: Any, tiny_batch: Any
) -> None:
    experiment, state = tiny_experiment(), run[0][4]
    mask = np.arange(16) % 3 > 0
    batch = tiny_batch(4)._replace(mask=mask.astype(np.float32))
    step = jit_eval_step(experiment.model, experiment.augmentation, experiment.layout)
    found = jax.device_get(step(state.variables, state.statistics, batch))
    found = found.take(found.mask).means()
    view = (batch.images - np.asarray(state.statistics["mean"]))[:, 1:13, 1:13] / 64
    apply = jax.jit(experiment.model.apply)
    logits = np.asarray(apply({"params": state.params}, view), np.float64)
    log_sums = np.log(np.exp(logits).sum(axis=1))
    losses = log_sums - logits[np.arange(16), batch.labels]
    places = np.argsort(-logits, axis=1) == batch.labels[:, None]
    assert found == pytest.approx(
        {
            "loss": losses[mask].mean(),
            "top1": places[mask, :1].any(axis=1).mean(),
            "top5": places[mask, :5].any(axis=1).mean(),
            "count": mask.sum(),
        },
        rel=1e-5,
    )


ALL_ON = {
    "crop_group_size": 8,
    "rotation_degrees": 10.0,
    "mean_at_crop": True,
    "color": ColorNoise("code", 0.1, until=3),
}


@pytest.fixture(scope="module")
def augmented(tiny_experiment: Any, tiny_state: Any, tiny_batch: Any) -> Callable[..., float]:
    """Returns (devices, step, changes) -> the loss of training the tiny model, without dropout.

    Runs of eight cross the rows of four devices.
    """
    spread = {"pca_components": jnp.ones((1, 1)), "pca_std": jnp.full(1, 400.0)}

    @functools.cache
    def compiled(devices: int, **changes: Any) -> Callable[..., Any]:
        experiment = tiny_experiment("data", devices)
        layers = tuple(
            layer for layer in experiment.model.spec.layers if not isinstance(layer, Dropout)
        )
        spec = dataclasses.replace(experiment.model.spec, layers=layers)
        model = AlexNet(spec, experiment.model.num_classes)
        augmentation = dataclasses.replace(experiment.augmentation, **changes)
        loss = make_loss(model, augmentation, experiment.layout)
        jitted = one_at_a_time(jax.jit(lambda state, batch: loss(state.params, state, batch)[0]))
        return lambda state, batch: jitted(state, put_batch(batch, experiment.mesh))

    def loss(devices: int, step: int, **changes: Any) -> float:
        state = tiny_state("data", devices)
        statistics = state.statistics | jax.device_put(spread, state.step.sharding)
        moved = jax.device_put(jnp.int32(step), state.step.sharding)
        state = dataclasses.replace(state, step=moved, statistics=statistics)
        return float(compiled(devices, **changes)(state, tiny_batch(0)))

    return loss


@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_augmentation_is_the_same_on_any_number_of_devices(augmented: Any, devices: int) -> None:
    for step in (2, 3):
        one = augmented(1, step, **ALL_ON)
        assert augmented(devices, step, **ALL_ON) == pytest.approx(one, rel=1e-5)


def test_color_noise_ends_by_the_step_of_the_state(augmented: Any) -> None:
    without = augmented(1, 0, **ALL_ON | {"color": None})
    assert augmented(1, 2, **ALL_ON) == augmented(1, 0, **ALL_ON) != without
    assert augmented(1, 3, **ALL_ON) == without


def test_images_to_look_at_are_what_the_step_is_given(
    tiny_experiment: Any, tiny_state: Any, tiny_batch: Any
) -> None:
    """Their crops, looked up in the batch, are where the key of the run puts them."""
    experiment, batch = tiny_experiment("data", 2), tiny_batch(3)
    shared = dataclasses.replace(experiment.augmentation, crop_group_size=4)
    experiment = dataclasses.replace(experiment, augmentation=shared)
    state = tiny_state("data", 2)
    found = experiment.training_images(state, batch)
    keys = augment.ExampleKeys.at(state.key, batch.stream_position, 4)
    view_of = jax.jit(augment.training_view, static_argnums=3)
    view = view_of(keys, batch.images, state.statistics, shared, state.step)[0] / shared.scale
    mean = np.asarray(state.statistics["mean"])[1:13, 1:13]
    np.testing.assert_allclose(found, view + mean, atol=0.01)
