"""Caffe's files, written byte by byte, give the logits that numpy computes from their arrays."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_numpy
import jax
import numpy as np
import pytest
from caffe_numpy import Arrays, Layer, Style, data, number

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet
from alexnet_jax.weights import ModelFile, ReadOptions
from alexnet_jax.weights.layout import spec_of

LAYERS = caffe_numpy.network()
STYLES = [
    pytest.param(Style(1, legacy_dims=True), id="v1-legacy"),
    pytest.param(Style(1), id="v1-shape"),
    pytest.param(Style(2), id="v2-shape"),
    pytest.param(Style(2, legacy_dims=True), id="v2-legacy"),
    pytest.param(Style(2, double=True), id="v2-double"),
]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return caffe_numpy.make_arrays(LAYERS)


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., ModelFile]:
    def read_bytes(content: bytes, **options: Any) -> ModelFile:
        file = tmp_path / "a.caffemodel"
        file.write_bytes(content)
        return weights.read(file, ReadOptions(**options))

    return read_bytes


def image(size: int = 227) -> np.ndarray:
    """Returns float32[3, size, size], BGR less the mean; no symmetry leaves it the same."""
    rng = np.random.default_rng(3)
    slopes = np.linspace(-1, 1, size)
    x = rng.normal(0, 30, (3, size, size)) + 40 * slopes[:, None] + 20 * slopes**2
    return (x * np.array([0.5, 1, 1.5])[:, None, None]).astype(np.float32)


def logits(model_file: ModelFile, bgr: np.ndarray) -> np.ndarray:
    model = AlexNet(spec_of(model_file.config), model_file.config["model.num_classes"])
    rgb = bgr[::-1].transpose(1, 2, 0)[None]
    return np.asarray(jax.jit(model.apply)({"params": model_file.params}, rgb))[0]


def error(model_file: ModelFile, layers: list[Layer], arrays: Arrays, size: int = 227) -> float:
    """Returns the relative error of the logits."""
    expected = caffe_numpy.logits(layers, arrays, image(size))
    difference = logits(model_file, image(size)) - expected
    return float(np.linalg.norm(difference) / np.linalg.norm(expected))


@pytest.mark.parametrize("style", STYLES)
def test_all_styles_hold_the_same(
    style: Style, arrays: Arrays, read: Callable[..., ModelFile]
) -> None:
    found = read(caffe_numpy.encode(LAYERS, arrays, style))
    assert found.config["model.name"] == "caffe"
    assert not [path for path in found.config if path.endswith(("ceil_mode", "padding", "groups"))]
    for name, (kernel, bias) in arrays.items():
        parameters = found.params[name]
        np.testing.assert_array_equal(parameters["bias"], bias)
        if name == "conv1":
            np.testing.assert_array_equal(
                parameters["kernel"], kernel.transpose(2, 3, 1, 0)[:, :, ::-1]
            )
        elif kernel.ndim == 4:
            np.testing.assert_array_equal(parameters["kernel"], kernel.transpose(2, 3, 1, 0))


def test_logits_of_alexnet(arrays: Arrays, read: Callable[..., ModelFile]) -> None:
    found = read(caffe_numpy.encode(LAYERS, arrays, Style(1, legacy_dims=True)))
    assert error(found, LAYERS, arrays) < 1e-4


def test_logits_of_caffenet(arrays: Arrays, read: Callable[..., ModelFile]) -> None:
    """Its pools come before its norms, which only the order of its layers says."""
    layers = caffe_numpy.network("caffenet")
    found = read(caffe_numpy.encode(layers, arrays))
    assert found.config["model.name"] == "caffenet"
    assert error(found, layers, arrays) < 1e-4
    assert error(found, LAYERS, arrays) > 1e-3
