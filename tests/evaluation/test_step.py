"""Views averaged by the evaluation step, against the tiny model applied to each in numpy."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from alexnet_jax.evaluation.predictions import Predictions
from alexnet_jax.evaluation.step import jit_eval_step, usual_scales
from alexnet_jax.models.overrides import fully_convolutional

SIDE, CROP = 14, 12


@pytest.fixture(scope="module")
def state(tiny_state: Any, tiny_step: Any, tiny_batch: Any) -> Any:
    """The tiny model after three steps: its biases differ from one another."""
    state = tiny_state()
    for number in range(3):
        state, _ = tiny_step()(state, tiny_batch(number))
    return jax.device_get(state)


@pytest.fixture(scope="module")
def apply(tiny_experiment: Any) -> Any:
    """The tiny model's forward pass, compiled once."""
    return jax.jit(tiny_experiment().model.apply)


@pytest.fixture
def predictions_of(tiny_experiment: Any, state: Any, tiny_batch: Any) -> Any:
    """Returns options -> the predictions for the batch of step 9."""

    def run(**options: Any) -> Predictions:
        parts = tiny_experiment()
        step = jit_eval_step(parts.model, parts.augmentation, parts.layout, **options)
        found = step(state.variables, state.statistics, tiny_batch(9))
        return jax.device_get(found)

    return run


def softmax(logits: Any) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def assert_close(found: Predictions, probabilities: np.ndarray, labels: np.ndarray) -> None:
    own = probabilities[np.arange(len(labels)), labels]
    np.testing.assert_allclose(found.log_probabilities, np.log(own), rtol=1e-4, atol=1e-5)
    best = -np.sort(-probabilities, axis=1)[:, :5]
    np.testing.assert_allclose(found.probabilities, best, rtol=1e-4)
    assert found.ranks.tolist() == (probabilities > own[:, None]).sum(axis=1).tolist()


def test_ten_crops_average_probabilities(
    predictions_of: Any, state: Any, apply: Any, tiny_batch: Any
) -> None:
    """Not logits: the result would differ."""
    batch = tiny_batch(9)
    mean = np.asarray(state.statistics["mean"])[1:13, 1:13]
    logits = []
    for top, left in ((0, 0), (0, 2), (1, 1), (2, 0), (2, 2)):
        crop = batch.images[:, top : top + CROP, left : left + CROP].astype(np.float32)
        for view in (crop, crop[:, :, ::-1]):
            logits.append(np.asarray(apply(state.variables, (view - mean) / 64)))
    expected = np.mean([softmax(one) for one in logits], axis=0)
    assert_close(predictions_of(view="ten_crops"), expected, batch.labels)
    assert np.abs(softmax(np.mean(logits, axis=0)) - expected).max() > 1e-4


@pytest.mark.parametrize("scales", [(), pytest.param((12, 20), marks=pytest.mark.slow)])
def test_dense_views_average_probabilities_over_positions_mirrors_and_scales(
    scales: tuple[int, ...], predictions_of: Any, state: Any, tiny_experiment: Any, tiny_batch: Any
) -> None:
    batch, model = tiny_batch(9), tiny_experiment().model
    wide = model.clone(spec=fully_convolutional(model.spec))
    heat_map = jax.jit(functools.partial(wide.apply, heat_map=True))
    mean = np.asarray(state.statistics["mean"])
    chances = []
    for size in scales or (12, 14, 16):
        for step in (1, -1):
            pixels = (batch.images[:, :, ::step].astype(np.float32) - mean) / 64
            view = np.stack([resized(image, size) for image in pixels])
            maps = heat_map(state.variables, view)
            assert (maps.shape[1] > 1) == (size > CROP)
            chances.append(softmax(maps).mean(axis=(1, 2)))
    assert_close(
        predictions_of(view="dense", scales=scales), np.mean(chances, axis=0), batch.labels
    )


def test_one_position_of_the_dense_model_is_the_model(
    predictions_of: Any, state: Any, apply: Any, tiny_batch: Any
) -> None:
    """At the model's own input size, with its dense layers as trained."""
    batch = tiny_batch(9)
    mean = np.asarray(state.statistics["mean"])
    chances = []
    for step in (1, -1):
        pixels = (batch.images[:, :, ::step].astype(np.float32) - mean) / 64
        small = np.stack([resized(image, CROP) for image in pixels])
        chances.append(softmax(apply(state.variables, small)))
    assert_close(
        predictions_of(view="dense", scales=(CROP,)), np.mean(chances, axis=0), batch.labels
    )


def resized(image: np.ndarray, size: int) -> np.ndarray:
    plane = Image.fromarray(image[..., 0])
    return np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))[..., None]


def test_usual_scales() -> None:
    assert usual_scales(224, 256) == (224, 256, 288)
    assert usual_scales(24, 24) == (24,)
