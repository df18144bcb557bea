"""Guerzhoy's npy against a forward pass with numpy, and the other forms of that file."""

import dataclasses
import io
import logging
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import narrow_models
import numpy as np
import pytest
from npy_files import Layers, npy, python_2

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet
from alexnet_jax.weights import ModelFile, ReadOptions, numpy_file
from alexnet_jax.weights.layout import spec_of


@pytest.fixture(scope="module")
def caffe() -> narrow_models.Arrays:
    """Returns the arrays as Caffe has them, for BGR images."""
    return narrow_models.make_arrays(narrow_models.CAFFE)


@pytest.fixture(scope="module")
def layers(caffe: narrow_models.Arrays) -> Layers:
    """Returns them as caffe-tensorflow transposes them: HWIO, and fc6 for HWC features."""
    result: Layers = {}
    for name, kernel in caffe.items():
        layer, _, kind = name.partition(".")
        if kind == "weight":
            order = (2, 3, 1, 0) if layer.startswith("conv") else (1, 0)
            if layer == "fc6":
                outputs, inputs = kernel.shape
                kernel = kernel.reshape(outputs, inputs // 36, 6, 6).transpose(0, 2, 3, 1)
                kernel = kernel.reshape(outputs, inputs)
            result[layer] = [np.ascontiguousarray(kernel.transpose(order)), caffe[f"{layer}.bias"]]
    return result


# ---- Writers

WRITERS: dict[str, Callable[[Layers], bytes]] = {
    "lists": npy,
    "tuples, biases first": lambda layers: npy({k: (b, w) for k, (w, b) in layers.items()}),
    "dicts": lambda layers: npy({k: {"weights": w, "biases": b} for k, (w, b) in layers.items()}),
    "bytes": lambda layers: npy(
        {k.encode(): {b"weights": w, b"biases": b} for k, (w, b) in layers.items()}
    ),
    "protocol 0": lambda layers: npy(layers, protocol=0),
    "protocol 2": lambda layers: npy(layers, protocol=2),
    "big-endian, Fortran order": lambda layers: npy(
        {k: [np.asfortranarray(w.astype(">f4")), b] for k, (w, b) in layers.items()}
    ),
    "float64": lambda layers: npy(
        {k: [x.astype(np.float64) for x in v] for k, v in layers.items()}
    ),
    "python 2": python_2,
}


def read(tmp_path: Path, data: bytes, **options: Any) -> ModelFile:
    path = tmp_path / "bvlc_alexnet.npy"
    path.write_bytes(data)
    return weights.read(path, ReadOptions(**options))


def logits(found: ModelFile, image: np.ndarray) -> np.ndarray:
    """Returns the logits of an RGB image."""
    model = AlexNet(spec_of(found.config), found.config["model.num_classes"])
    return np.asarray(jax.jit(model.apply)({"params": found.params}, image[None]))[0]


# ---- Reading


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Returns an RGB image, its mean subtracted."""
    rng = np.random.default_rng(1)
    return (rng.uniform(-120, 130, (227, 227, 3)) * [1, 0.6, 0.2]).astype(np.float32)


def test_numpy_reads_the_file_of_python_2(tmp_path: Path, layers: Layers) -> None:
    path = tmp_path / "bvlc_alexnet.npy"
    path.write_bytes(python_2(layers))
    loaded = np.load(path, allow_pickle=True, encoding="latin1").item()
    jax.tree.map(np.testing.assert_array_equal, loaded, layers)


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_arrays(tmp_path: Path, layers: Layers, form: str) -> None:
    found = read(tmp_path, WRITERS[form](layers))
    kernel, bias = layers["conv1"]
    np.testing.assert_array_equal(found.params["conv1"]["kernel"], kernel[:, :, ::-1])  # RGB
    np.testing.assert_array_equal(found.params["conv1"]["bias"], bias)
    for name in list(layers)[1:]:
        np.testing.assert_array_equal(found.params[name]["kernel"], layers[name][0])
        np.testing.assert_array_equal(found.params[name]["bias"], layers[name][1])


def peer(caffe: narrow_models.Arrays, image: np.ndarray) -> np.ndarray:
    """Returns the logits of an RGB image by a model for BGR images."""
    bgr = image[..., ::-1].transpose(2, 0, 1)
    return narrow_models.logits(caffe, bgr, narrow_models.CAFFE)


def test_logits_are_those_of_caffe(
    tmp_path: Path, caffe: narrow_models.Arrays, layers: Layers, image: np.ndarray
) -> None:
    found = read(tmp_path, npy(layers))
    assert found.config["model.layers.conv4.features"] == 12
    assert (found.config["data.image_size"], found.config["data.resize"]) == (227, "warp")
    assert any("BGR" in note for note in found.notes)
    np.testing.assert_allclose(logits(found, image), peer(caffe, image), rtol=1e-4, atol=1e-4)


def _swap_groups(layers: Layers) -> Layers:
    kernel, bias = layers["conv4"]
    return {**layers, "conv4": [np.roll(kernel, 6, axis=3), np.roll(bias, 6)]}


MISTAKES: dict[str, dict[str, Any]] = {
    "RGB": {"channel_order": "rgb"},
    "CHW in fc6": {"flattening": "CHW"},
    "transposed kernels": {"conv_axes": "WHIO"},
}


@pytest.mark.parametrize("mistake", [*MISTAKES, "groups"])
def test_a_mistaken_reader_gives_other_logits(
    tmp_path: Path,
    caffe: narrow_models.Arrays,
    layers: Layers,
    image: np.ndarray,
    mistake: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The comparison above notices each mistake, although all shapes fit."""
    layout = dataclasses.replace(numpy_file._LAYOUT, **MISTAKES.get(mistake, {}))
    monkeypatch.setattr(numpy_file, "_LAYOUT", layout)
    found = read(tmp_path, npy(layers if mistake in MISTAKES else _swap_groups(layers)))
    assert np.abs(logits(found, image) - peer(caffe, image)).max() > 1e-2


def test_convolutions_only(tmp_path: Path, layers: Layers) -> None:
    data = npy({name: layers[name] for name in layers if name.startswith("conv")})
    with pytest.raises(InputError, match=r"missing: fc6\.weights"):
        read(tmp_path, data)
    assert read(tmp_path, data, partial=True).fresh == ("fc6", "fc7", "fc8")


def test_a_mismatch_lists_everything(tmp_path: Path, layers: Layers) -> None:
    changed = {**layers, "prob": layers["fc8"], "conv3": [layers["conv3"][0][:, :, :7]]}
    with pytest.raises(InputError) as error:
        read(tmp_path, npy(changed))
    for line in (
        "missing: conv3.biases [16]",
        "extra: prob.weights [24, 5]",
        "different: conv3.weights is [3, 3, 7, 16], expected [3, 3, 12, 16]",
    ):
        assert line in str(error.value)


# ---- What is refused


class Hostile:
    """Runs a command where pickles are loaded by Python's own module."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_nothing_in_a_file_runs(tmp_path: Path, layers: Layers) -> None:
    marker = tmp_path / "ran"
    data = npy({**layers, "fc8": [Hostile(f"touch {marker}")]})
    with pytest.raises(InputError, match=r"names 'posix\.system'"):
        read(tmp_path, data)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (7, "no dictionary"),
        ([1, 2], "no dictionary"),
        ({"conv1": 3}, "no weights and biases"),
        ({"conv1": [1, 2]}, "no weights and biases"),
        ({"conv1": [np.zeros((2, 2)), np.zeros((2, 2))]}, "no weights and biases"),
        ({"conv1": [np.zeros(3, np.int32)]}, "floating-point"),
        ({}, "missing"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        read(tmp_path, npy(content))


def test_an_array_of_numbers_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.zeros((3, 3)))
    with pytest.raises(InputError, match="not a dictionary"):
        read(tmp_path, file.getvalue())


@pytest.mark.parametrize("form", ["lists", "python 2"])
def test_a_damaged_file_is_refused(tmp_path: Path, layers: Layers, form: str) -> None:
    data = WRITERS[form](layers)
    damaged = [data[: len(data) // part] for part in (2, 3, 50, 1000)]
    damaged += [data + b".", data[:6] + b"\2" + data[7:], data[:8] + b"\xff\xff" + data[10:]]
    for content in damaged:
        with pytest.raises(InputError):
            read(tmp_path, content)


def test_an_array_of_a_false_size_is_refused(tmp_path: Path, layers: Layers) -> None:
    """The sizes are checked before memory is taken."""
    data = python_2(layers)
    shape = b"".join(b"J" + struct.pack("<i", side) for side in layers["fc8"][0].shape)
    assert data.count(shape) == 1
    for size in (2**31 - 1, -1, 0, 15):
        with pytest.raises(InputError, match="damaged"):
            read(tmp_path, data.replace(shape, b"J" + struct.pack("<i", size) + shape[5:]))


def test_memory_is_bounded_by_the_file(tmp_path: Path) -> None:
    """A text of Python 2 that many arrays share would be copied for each."""
    text = b"T" + struct.pack("<I", 4000) + b"\0" * 4000 + b"q\x01"
    dtype = b"cnumpy\ndtype\nU\x02f4\x85R"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01M\xe8\x03\x85" + dtype + b"\x89h\x01tb"
    content = b"\x80\x02" + text + array * 50 + b"."
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
    with pytest.raises(InputError, match="memory"):
        read(tmp_path, file.getvalue() + content)


# ---- Writing


def test_a_written_file_is_one_for_numpy(
    tmp_path: Path, layers: Layers, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, npy(layers))
    with caplog.at_level(logging.WARNING):
        weights.write(tmp_path / "written", "npy", found)
    assert not caplog.messages
    loaded = np.load(tmp_path / "written", allow_pickle=True, encoding="latin1").item()
    assert list(loaded) == list(layers)
    jax.tree.map(np.testing.assert_array_equal, loaded, layers)
    again = weights.read(tmp_path / "written", ReadOptions())
    jax.tree.map(np.testing.assert_array_equal, again.params, found.params)
    assert again.config == found.config


def test_preprocessing_that_is_lost_is_named(
    tmp_path: Path, layers: Layers, caplog: pytest.LogCaptureFixture
) -> None:
    found = read(tmp_path, npy(layers))
    changes = {"data.resize": "crop", "augment.scale": 2.0}
    other = dataclasses.replace(found, config={**found.config, **changes})
    weights.write(tmp_path / "written", "npy", other)
    named = zip(changes, caplog.messages, strict=True)
    assert all(key in message for key, message in named)


def test_other_models_are_not_written(tmp_path: Path, layers: Layers) -> None:
    """CaffeNet has the same names and shapes, but other operations."""
    found = read(tmp_path, npy(layers))
    other = dataclasses.replace(found, config={**found.config, "model.name": "caffenet"})
    with pytest.raises(InputError, match="The format npz holds any model"):
        weights.write(tmp_path / "written", "npy", other)
    assert not (tmp_path / "written").exists()
