"""Every model as ONNX, run by onnxruntime, against PyTorch's own layers and our preprocessing."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch_models
from cases import CLASSES, Case, make_case, ours, small_size

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the parity extra: make parity")

from alexnet_jax import schema, weights  # noqa: E402
from alexnet_jax.errors import InputError  # noqa: E402
from alexnet_jax.models import create_model, list_models  # noqa: E402
from alexnet_jax.models.layers import Activation, BatchNorm, Layer, LayerNorm  # noqa: E402
from alexnet_jax.models.variants import VARIANTS  # noqa: E402
from alexnet_jax.weights import ModelFile  # noqa: E402


def narrow(name: str) -> dict[str, Any]:
    """Returns overrides that make a model of 224 pixels small."""
    spec = create_model(name, CLASSES).spec
    if spec.input_size < 100:
        return {}
    width = 128 if name == "groupnorm" else 32  # of one feature, a group's norm is 0
    layers = {x.name: {"features": width} for x in spec.layers if getattr(x, "features", 0)}
    return {"layers": layers, "input_size": small_size(name)}


def model_file(case: Case, name: str, overrides: dict[str, Any], **config: Any) -> ModelFile:
    keys = {f"model.{path}": value for path, value in schema.flatten(overrides).items()}
    fixed = {"model.name": name, "model.num_classes": CLASSES, "augment.mean": "none"}
    return ModelFile({**fixed, **keys, **config}, case.params, case.batch_stats)


def run(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits and probabilities of float[batch, height, width, channels] images."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    logits, probabilities = session.run(["logits", "probabilities"], {"images": pixels})
    return logits, probabilities


def check(tmp_path: Path, name: str, **overrides: Any) -> None:
    case = make_case(name, dtype="float32", **overrides)
    path = tmp_path / "model.onnx"
    weights.write(path, "onnx", model_file(case, name, overrides))
    expected, *_ = torch_models.theirs(case)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3
    logits, probabilities = run(path, case.images)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, jax.nn.softmax(expected), rtol=1e-4, atol=1e-6)
    one, _ = run(path, case.images[1:])  # a batch of another size
    np.testing.assert_allclose(one, expected[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list_models())
def test_model(name: str, tmp_path: Path) -> None:
    check(tmp_path, name, **narrow(name))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("digits", {"fully_convolutional": True, "input_size": 40}),
        ("digits", {"layers": {"norm1": {"size": 4, "alpha": 0.1}, "norm2": {"size": 2}}}),
        ("cifar_11", {"layers": {"norm1": {"size": 4, "alpha": 0.1}}}),
        ("cifar_26", {"activation": "abs_tanh"}),
        ("cifar_26", {"activation": "tanh", "lrn": "all"}),
        ("cifar_13", {"activation": "sigmoid"}),
        ("torchvision", {**narrow("torchvision"), "input_size": 112}),  # adaptive: 2 to 6
        ("torchvision", {**narrow("torchvision"), "input_size": 300}),  # adaptive: 8 to 6
        ("paper", {**narrow("paper"), "pooling": "non_overlapping", "dropout": 0.3}),
        (
            "no_communication",
            {**narrow("no_communication"), "fully_convolutional": True, "input_size": 256},
        ),
    ],
)
def test_options(name: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    check(tmp_path, name, **overrides)


def test_layer_norm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = VARIANTS["batchnorm"].map(BatchNorm, lambda x: LayerNorm(x.name))
    monkeypatch.setitem(VARIANTS, "batchnorm", changed)
    overrides = narrow("batchnorm")
    case = make_case("batchnorm", dtype="float32", **overrides)
    weights.write(tmp_path / "model.onnx", "onnx", model_file(case, "batchnorm", overrides))
    logits, _ = run(tmp_path / "model.onnx", case.images)
    np.testing.assert_allclose(logits, ours(case)[0], rtol=1e-4, atol=1e-4)


def test_a_layer_that_onnx_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cube(Layer):
        pass

    changed = VARIANTS["cifar_26"].map(Activation, lambda x: Cube("cube"))
    case = make_case("cifar_26", dtype="float32")
    monkeypatch.setitem(VARIANTS, "cifar_26", changed)
    with pytest.raises(InputError, match=r"no operators for the layer cube \(Cube\)"):
        weights.write(tmp_path / "model.onnx", "onnx", model_file(case, "cifar_26", {}))


# ---- Preprocessing


@pytest.mark.parametrize(
    "config",
    [
        {"augment.mean": "given", "augment.channel_mean": (3.0, 2.0, 1.0), "augment.scale": 0.02},
        {"augment.mean": "image_at_crop", "augment.channel_std": (50.0, 60.0, 70.0)},
    ],
)
def test_preprocessing_is_part_of_the_model(config: dict[str, Any], tmp_path: Path) -> None:
    """The mean image is larger than the input: its center is subtracted."""
    rng, case = np.random.default_rng(0), make_case("cifar_26", dtype="float32")
    found = model_file(case, "cifar_26", {}, **config)
    mean: Any = (3.0, 2.0, 1.0)
    factor: Any = 0.02
    if config["augment.mean"] != "given":
        image = rng.uniform(0, 255, (37, 37, 3)).astype(np.float32)
        found = dataclasses.replace(found, mean=image)
        mean, factor = image[2:34, 2:34], 1 / np.array(config["augment.channel_std"])
    weights.write(tmp_path / "model.onnx", "onnx", found)
    pixels = rng.integers(0, 256, case.images.shape).astype(np.float32)
    case = dataclasses.replace(case, images=((pixels - mean) * factor).astype(np.float32))
    expected, *_ = torch_models.theirs(case)
    logits, _ = run(tmp_path / "model.onnx", pixels)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
