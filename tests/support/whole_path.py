"""From image files to probabilities with this package, as its jobs do it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from cases import OPTIMIZED, Case
from ml_collections import ConfigDict

from alexnet_jax import schema
from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.data.image_files import ImageFiles
from alexnet_jax.data.statistics import statistics_of
from alexnet_jax.experiment import Experiment, statistics_options
from alexnet_jax.preprocessing.crops import center_view

# The preprocessing of the two families, as weight files of theirs set it.
TORCHVISION = {
    "model.name": "torchvision",
    "data.resize": "torchvision",
    "augment.mean": "given",
    "augment.channel_mean": (123.675, 116.28, 103.53),
    "augment.channel_std": (58.395, 57.12, 57.375),
}
CAFFE = {
    "model.name": "caffe",
    "data.resize": "warp",
    "augment.mean": "image_at_crop",
}


def images_of(paths: Sequence[Path], keys: dict[str, Any]) -> np.ndarray:
    """Returns uint8[n, 256, 256, 3], as the host passes them on."""
    examples = ImageFiles(paths, (256, 256, 3), keys["data.resize"]).load(np.arange(len(paths)))
    assert examples.readable.all()
    return examples.images


def input_of(images: np.ndarray, keys: dict[str, Any], mean: np.ndarray | None = None) -> jax.Array:
    """Returns the model's input, float32[n, height, width, 3].

    Args:
      images: uint8[n, 256, 256, 3].
      keys: that differ from the defaults of the config.
      mean: float32[256, 256, 3], the mean image.
    """
    tree, errors = schema.merge(SCHEMA, keys)
    assert not errors
    config = ConfigDict(tree)
    experiment = Experiment.from_config(config, num_classes=10, num_examples=1)
    if mean is None:
        source = ImageFiles([], experiment.image_shape, config.data.resize)
        statistics = statistics_of(source, statistics_options(config))
    else:
        statistics = {"mean": mean}
    return center_view(images, statistics, experiment.augmentation)


def logits_of(case: Case, inputs: Any) -> np.ndarray:
    """Returns float32[n, classes]."""
    apply = jax.jit(case.model.apply, compiler_options=OPTIMIZED)
    return np.asarray(apply({"params": case.params}, inputs))


def assert_same_answers(logits: np.ndarray, expected: np.ndarray, different: int) -> None:
    """Top-5 equal and probabilities to 1e-3.

    With random weights the logits are close together and all images alike. So both are changed as
    by another bias and a factor in the last layer, until some probabilities are large.

    Args:
      logits: float32[n, classes].
      expected: the reference's.
      different: how many classes must be the most probable of some image, so that it matters.
    """
    bias = expected.mean(axis=0)
    factor = 4 / (expected - bias).std()
    found, wanted = (softmax(factor * (each - bias)) for each in (logits, expected))
    top, wanted_top = (np.argsort(-each, axis=1)[:, :5] for each in (found, wanted))
    assert len(np.unique(wanted_top[:, 0])) >= different
    np.testing.assert_array_equal(top, wanted_top)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities, float64[n, classes]."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True), dtype=np.float64)
    return odds / odds.sum(axis=1, keepdims=True)
