"""Evaluation counts every readable image once, on any number of devices."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax.data.pipeline import ReadOptions
from alexnet_jax.data.source import ArraySource
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluate import batches_of, evaluate
from alexnet_jax.evaluation.predictions import Predictions, predict
from alexnet_jax.parallel.mesh import make_layout

MakeSource = Callable[..., ArraySource]

RNG = np.random.default_rng(0)
CLASSES = 9
LOGITS = RNG.normal(0, 3, (100, CLASSES)).astype(np.float32)  # of the image of that gray level


@pytest.fixture
def source(array_source: MakeSource) -> MakeSource:
    """Returns (size, broken indices) -> a source whose image i has the gray level i."""

    def make(size: int, *broken: int) -> ArraySource:
        images = np.arange(size, dtype=np.uint8)[:, None, None, None]
        labels = RNG.integers(0, CLASSES, size).astype(np.int32)
        return array_source(images, labels, CLASSES, broken)

    return make


@jax.jit
def eval_step(params: Any, statistics: Any, batch: Any) -> Predictions:
    """Looks the logits up by the image's gray level."""
    del statistics
    return predict(jax.nn.log_softmax(params[batch.images[:, 0, 0, 0]]), batch)


def run(
    examples: ArraySource, strategy: str = "data", devices: int = 4, **options: Any
) -> Predictions:
    step = functools.partial(options.pop("step", eval_step), LOGITS, None)
    mesh = make_layout(strategy, devices).mesh
    return evaluate(step, batches_of(examples, 5, mesh), mesh, ReadOptions(threads=2), **options)


def oracle(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    logits = logits.astype(np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    order = np.argsort(-logits, axis=1) == labels[:, None]
    return {
        "loss": losses.mean(),
        "top1": order[:, :1].any(axis=1).mean(),
        "top5": order[:, :5].any(axis=1).mean(),
        "count": len(labels),
    }


@pytest.mark.parametrize("size", [1, 7, 8, 9, 50])
@pytest.mark.parametrize(("strategy", "devices"), [("single", 1), ("data", 4), ("tower", 4)])
def test_every_image_counts_once(
    source: MakeSource, strategy: str, devices: int, size: int
) -> None:
    """Also where neither the batch nor the devices divide the split: 5 becomes 8 on four."""
    examples = source(size)
    found = run(examples, strategy, devices).means()
    assert found == pytest.approx(oracle(examples.labels, LOGITS[:size]), rel=1e-5)


def test_every_example_keeps_its_index(source: MakeSource) -> None:
    """Unreadable and padded rows left out, the five best classes in falling order."""
    examples = source(22, 0, 13)
    found = run(examples)
    kept = np.delete(np.arange(22), [0, 13])
    odds = np.exp(LOGITS[kept].astype(np.float64))
    chances = odds / odds.sum(axis=1, keepdims=True)
    best = np.argsort(-chances, axis=1)[:, :5]
    own = chances[np.arange(20), examples.labels[kept]]
    assert found.example_index.tolist() == kept.tolist()
    assert found.labels.tolist() == examples.labels[kept].tolist()
    assert found.classes.tolist() == best.tolist()
    assert found.ranks.tolist() == (chances > own[:, None]).sum(axis=1).tolist()
    assert found.correct.tolist() == (best[:, 0] == examples.labels[kept]).tolist()
    np.testing.assert_allclose(
        found.probabilities, np.take_along_axis(chances, best, axis=1), rtol=1e-5
    )
    np.testing.assert_allclose(found.log_probabilities, np.log(own), rtol=1e-5)


def test_unreadable_images_are_logged_and_excluded(
    source: MakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    broken = (0, 13, 21)
    examples = source(22, *broken)
    found = run(examples).means()
    kept = np.delete(np.arange(22), broken)
    assert found == pytest.approx(oracle(examples.labels[kept], LOGITS[kept]), rel=1e-5)
    assert [record.getMessage() for record in caplog.records] == [
        f"Not evaluated, unreadable: set split example {index}" for index in broken
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_no_readable_image_is_an_input_error(source: MakeSource) -> None:
    with pytest.raises(InputError, match="split"):
        run(source(3, 0, 1, 2))


def test_a_step_that_mixes_up_examples_is_an_internal_error(source: MakeSource) -> None:
    def careless(params: Any, statistics: Any, batch: Any) -> Predictions:
        return eval_step(
            params, statistics, batch._replace(stream_position=batch.stream_position // 2)
        )

    with pytest.raises(RuntimeError, match="of 9 examples"):
        run(source(9), step=careless)


def test_counting_an_unreadable_image_is_an_internal_error(source: MakeSource) -> None:
    def careless(params: Any, statistics: Any, batch: Any) -> Predictions:
        return eval_step(params, statistics, batch._replace(mask=batch.mask * 0 + 1))

    with pytest.raises(RuntimeError, match="unreadable"):
        run(source(9, 4), step=careless)


def test_progress_is_reported_step_by_step(source: MakeSource) -> None:
    steps: list[int] = []
    run(source(17), progress=steps.append)
    assert steps == [1, 2, 3]
