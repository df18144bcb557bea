"""What a model computes after its weights are imported."""

import functools
from typing import Any

import jax
import numpy as np

from alexnet_jax.models import AlexNet
from alexnet_jax.weights import ModelFile
from alexnet_jax.weights.layout import spec_of


def planes(size: int) -> np.ndarray:
    """Returns float32[3, size, size]; no symmetry leaves it the same."""
    rng = np.random.default_rng(3)
    slopes = np.linspace(-1, 1, size)
    x = rng.normal(0, 30, (3, size, size)) + 40 * slopes[:, None] + 20 * slopes**2
    return (x * np.array([0.5, 1, 1.5])[:, None, None]).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def _logits(model: AlexNet, params: Any, images: Any) -> jax.Array:  # compiled once per model
    return model.apply({"params": params}, images)


def logits(model_file: ModelFile, planes: np.ndarray, channel_order: str) -> np.ndarray:
    """Returns the logits of float32[3, height, width], "bgr" or "rgb"."""
    model = AlexNet(spec_of(model_file.config), model_file.config["model.num_classes"])
    rgb = planes[::-1] if channel_order == "bgr" else planes
    return np.asarray(_logits(model, model_file.params, rgb.transpose(1, 2, 0)[None])[0])


def difference(model_file: ModelFile, expected: np.ndarray, size: int, channel_order: str) -> float:
    """Returns the relative difference of its logits of `planes(size)` from the expected ones."""
    found = logits(model_file, planes(size), channel_order)
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
