"""Arrays of other programs become parameters that compute the same logits."""

import dataclasses
import re

import jax
import ml_dtypes
import narrow_models
import numpy as np
import pytest
from narrow_models import CAFFE, CLASSES, TORCHVISION, Arrays, Geometry

from alexnet_jax.errors import InputError
from alexnet_jax.models import AlexNet, ModelSpec
from alexnet_jax.weights import ModelFile, ReadOptions
from alexnet_jax.weights.layout import Layout, from_params, own_layout, pairs, spec_of, to_params

_PREFIXES = {f"conv{i}": f"conv{i}." for i in range(1, 6)} | {
    f"fc{i}": f"fc{i}." for i in (6, 7, 8)
}
NAMES = pairs(_PREFIXES, "weight", "bias")
PLAIN = Layout("plain", "torchvision", NAMES)
GROUPED = Layout("grouped", "caffe", NAMES, channel_order="bgr")
CASES = [pytest.param(PLAIN, TORCHVISION, id="plain"), pytest.param(GROUPED, CAFFE, id="grouped")]


def image_of(geometry: Geometry) -> np.ndarray:
    rng = np.random.default_rng(3)
    slope = np.linspace(-1, 1, geometry.size)
    return (rng.normal(0, 30, (geometry.size, geometry.size, 3)) + 60 * slope[:, None]).astype("f4")


def logits_of(model_file: ModelFile, images: np.ndarray) -> np.ndarray:
    model = AlexNet(spec_of(model_file.config), model_file.config["model.num_classes"])
    return np.asarray(jax.jit(model.apply)({"params": model_file.params}, images))


def error_of(arrays: Arrays, found: Layout, geometry: Geometry) -> float:
    """Returns the relative error of the logits of an import."""
    image = image_of(geometry)
    planes = image.transpose(2, 0, 1)[:: -1 if geometry.groups == 2 else 1]  # BGR, as Caffe has it
    expected = narrow_models.logits(narrow_models.make_arrays(geometry), planes, geometry)
    ours = logits_of(to_params(arrays, found, ReadOptions()), image[None])[0]
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(("found", "geometry"), CASES)
def test_logits_are_those_of_the_file(found: Layout, geometry: Geometry) -> None:
    assert error_of(narrow_models.make_arrays(geometry), found, geometry) < 1e-4


def swapped_halves(arrays: Arrays, name: str) -> Arrays:
    first, second = np.split(arrays[name], 2)
    return {**arrays, name: np.concatenate([second, first])}


@pytest.mark.parametrize(
    ("found", "geometry"),
    [
        pytest.param(dataclasses.replace(PLAIN, flattening="HWC"), TORCHVISION, id="HWC"),
        pytest.param(dataclasses.replace(PLAIN, channel_order="bgr"), TORCHVISION, id="BGR"),
        pytest.param(dataclasses.replace(PLAIN, conv_axes="OIWH"), TORCHVISION, id="transposed"),
        pytest.param(dataclasses.replace(GROUPED, flattening="HWC"), CAFFE, id="grouped-HWC"),
        pytest.param(dataclasses.replace(GROUPED, channel_order="rgb"), CAFFE, id="grouped-RGB"),
        pytest.param(dataclasses.replace(GROUPED, model="caffenet"), CAFFE, id="pool-first"),
    ],
)
def test_the_wrong_layout_is_detected(found: Layout, geometry: Geometry) -> None:
    assert error_of(narrow_models.make_arrays(geometry), found, geometry) > 1e-3


def test_swapped_group_halves_are_detected() -> None:
    arrays = swapped_halves(narrow_models.make_arrays(CAFFE), "conv4.weight")
    assert error_of(arrays, GROUPED, CAFFE) > 1e-3


@pytest.mark.parametrize(("found", "geometry"), CASES)
def test_writing_gives_the_same_bits(found: Layout, geometry: Geometry) -> None:
    arrays = narrow_models.make_arrays(geometry)
    written = from_params(to_params(arrays, found, ReadOptions()), found)
    assert written.keys() == arrays.keys()
    for name, array in written.items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)


def test_sizes_come_from_the_shapes() -> None:
    config = to_params(narrow_models.make_arrays(CAFFE), PLAIN, ReadOptions()).config
    assert config["model.num_classes"] == CLASSES
    assert config["model.layers.conv3.features"] == 16
    assert config["model.layers.fc7.features"] == 24
    assert config["model.layers.conv4.groups"] == 2
    assert "model.layers.conv1.groups" not in config
    assert "model.layers.fc8.features" not in config


@pytest.mark.parametrize("dtype", ["float16", "float64", "bfloat16"])
def test_other_types_become_float32(dtype: str) -> None:
    arrays = {
        x: a.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
        for x, a in narrow_models.make_arrays().items()
    }
    kernel = to_params(arrays, PLAIN, ReadOptions()).params["conv1"]["kernel"]
    assert kernel.dtype == np.float32
    expected = arrays["conv1.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, expected)


def test_parameters_own_their_memory() -> None:
    arrays = narrow_models.make_arrays()
    params = to_params(arrays, PLAIN, ReadOptions()).params
    for layer in params.values():
        for array in layer.values():
            assert not any(np.shares_memory(array, given) for given in arrays.values())
            assert array.flags.c_contiguous
            assert array.flags.writeable


def test_axes_of_length_one_in_front_are_ignored() -> None:
    arrays = narrow_models.make_arrays()
    kernel, bias = arrays["fc6.weight"], arrays["conv1.bias"]
    legacy = {"fc6.weight": kernel[None, None], "conv1.bias": bias[None, None, None]}
    found = to_params({**arrays, **legacy}, PLAIN, ReadOptions())
    expected = to_params(arrays, PLAIN, ReadOptions())
    np.testing.assert_array_equal(found.params["fc6"]["kernel"], expected.params["fc6"]["kernel"])


def test_every_difference_is_listed() -> None:
    arrays = narrow_models.make_arrays()
    del arrays["conv3.bias"]
    arrays["head.weight"] = np.zeros((3, 2), np.float32)
    arrays["fc6.weight"] = arrays["fc6.weight"][:, :-1]
    arrays["fc7.bias"] = arrays["fc7.bias"].astype(np.int32)
    with pytest.raises(InputError) as caught:
        to_params(arrays, PLAIN, ReadOptions())
    for line in (
        "missing: conv3.bias [16]",
        "extra: head.weight [3, 2]",
        "different: fc6.weight is [20, 287], expected [20, 288]",
        "different: fc7.bias is int32, expected float32",
    ):
        assert line in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.transpose(1, 0, 2, 3),
        lambda x: x[:, :-1],
        lambda x: x[..., 1:],
        lambda x: x.reshape(len(x), -1),
    ],
    ids=["transposed", "inputs", "kernel size", "flat"],
)
def test_a_second_convolution_of_another_shape_is_refused(change: object) -> None:
    arrays = narrow_models.make_arrays()
    arrays["conv2.weight"] = change(arrays["conv2.weight"])  # type: ignore[operator]
    with pytest.raises(InputError, match=re.escape("different: conv")):
        to_params(arrays, PLAIN, ReadOptions())


def test_a_partial_file_names_the_fresh_layers() -> None:
    arrays = {x: a for x, a in narrow_models.make_arrays().items() if x.startswith("conv")}
    with pytest.raises(InputError, match=re.escape("missing: fc6.weight [4096, 288]")):
        to_params(arrays, PLAIN, ReadOptions())
    found = to_params(arrays, PLAIN, ReadOptions(partial=True))
    assert found.fresh == ("fc6", "fc7", "fc8")
    assert list(found.params) == [f"conv{i}" for i in range(1, 6)]
    del arrays["conv5.bias"]  # of a layer that is there
    with pytest.raises(InputError, match=re.escape("missing: conv5.bias [8]")):
        to_params(arrays, PLAIN, ReadOptions(partial=True))


def test_the_options_replace_the_layout() -> None:
    arrays = narrow_models.make_arrays(CAFFE)
    found = to_params(arrays, GROUPED, ReadOptions(model="caffenet", channel_order="rgb"))
    expected = to_params(arrays, GROUPED, ReadOptions())
    assert found.config["model.name"] == "caffenet"
    kernels = (x.params["conv1"]["kernel"] for x in (found, expected))
    np.testing.assert_array_equal(next(kernels)[:, :, ::-1], next(kernels))
    with pytest.raises(InputError, match="caffnet"):
        to_params(arrays, GROUPED, ReadOptions(model="caffnet"))


@pytest.mark.parametrize("name", ["paper", "caffe", "ungrouped", "digits", "batchnorm"])
def test_a_layout_holds_models_of_its_layers_only(name: str) -> None:
    config = {"model.name": name, "model.num_classes": CLASSES}
    with pytest.raises(InputError, match="layers"):
        from_params(ModelFile(config, {}), PLAIN)


def test_dropout_that_does_nothing_in_inference_is_no_difference() -> None:
    found = to_params(narrow_models.make_arrays(), PLAIN, ReadOptions())
    config = {**found.config, "model.dropout": 0.0}
    assert from_params(dataclasses.replace(found, config=config), PLAIN)


def test_own_layout_holds_every_parameter() -> None:
    names = own_layout({"model.name": "batchnorm"}).names
    assert names["conv1_norm"] == {
        "scale": "conv1_norm/scale",
        "bias": "conv1_norm/bias",
        "mean": "batch_stats/conv1_norm/mean",
        "var": "batch_stats/conv1_norm/var",
    }
    assert names["fc8"]["kernel"] == "fc8/kernel"
    assert isinstance(spec_of({"model.name": "batchnorm"}), ModelSpec)


@pytest.mark.parametrize(
    "config",
    [{"model.nme": "paper"}, {"model.name": ["paper"]}, {"model.name": "paper", "model.x": 1}],
)
def test_an_invalid_model_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(InputError):
        spec_of(config)
