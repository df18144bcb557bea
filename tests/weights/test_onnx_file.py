"""ONNX files, written with onnx.helper, give the logits that numpy computes from their arrays."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_numpy
import imported
import numpy as np
import onnx
import onnx_models
import pytest
from caffe_numpy import Arrays
from onnx import TensorProto, helper, numpy_helper

import alexnet_jax
from alexnet_jax import weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.weights import ModelFile, ReadOptions, onnx_file

Read = Callable[..., ModelFile]


LAYERS = onnx_models.bvlc_layers()


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return caffe_numpy.make_arrays(LAYERS, size=224)


@pytest.fixture
def model(arrays: Arrays) -> onnx.ModelProto:
    return onnx_models.bvlc_alexnet(arrays)


def logits(arrays: Arrays) -> np.ndarray:
    return caffe_numpy.logits(LAYERS, arrays, imported.planes(224))


@pytest.fixture(scope="module")
def expected(arrays: Arrays) -> np.ndarray:
    """Returns the logits."""
    return logits(arrays)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read_model(model: onnx.ModelProto | bytes, **options: Any) -> ModelFile:
        file = tmp_path / "a.onnx"
        file.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return weights.read(file, ReadOptions(**options))

    return read_model


def error(model_file: ModelFile, expected: np.ndarray) -> float:
    return imported.difference(model_file, expected, 224, "bgr")


# ---- bvlcalexnet


def test_logits_of_bvlcalexnet(model: onnx.ModelProto, expected: np.ndarray, read: Read) -> None:
    onnx.checker.check_model(model, full_check=True)
    found = read(model)
    assert error(found, expected) < 1e-4
    config = found.config
    assert (config["model.name"], config["model.input_size"]) == ("caffe", 224)
    assert config["model.layers.pool5.ceil_mode"] is True
    assert "model.layers.pool1.ceil_mode" not in config
    assert (config["data.image_size"], config["data.resize"]) == (256, "warp")
    assert config["augment.channel_mean"] == (122.6789143, 116.6687676, 104.0069879)


def test_the_order_of_channels_matters(
    model: onnx.ModelProto, expected: np.ndarray, read: Read
) -> None:
    found = read(model, channel_order="rgb")
    assert error(found, expected) > 1e-2
    assert imported.difference(found, expected, 224, "rgb") < 1e-4


def test_from_pixels_to_logits(model: onnx.ModelProto, arrays: Arrays, tmp_path: Path) -> None:
    """BGR pixels of the center, less Caffe's mean color."""
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    pixels = np.random.default_rng(6).integers(0, 256, (256, 256, 3), np.uint8)
    mean = np.array([104.0069879, 116.6687676, 122.6789143])[:, None, None]
    crop = pixels[16:240, 16:240, ::-1].transpose(2, 0, 1) - mean
    found = np.asarray(alexnet_jax.load(tmp_path / "a.onnx").logits(pixels[None]))[0]
    expected = caffe_numpy.logits(LAYERS, arrays, crop)
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", caffe_numpy.SWAPS)
def test_a_swap_changes_the_logits(
    name: str, arrays: Arrays, expected: np.ndarray, read: Read
) -> None:
    kernel, bias = arrays[name]
    swapped = {**arrays, name: (np.ascontiguousarray(caffe_numpy.SWAPS[name](kernel)), bias)}
    assert error(read(onnx_models.bvlc_alexnet(swapped)), expected) > 1e-2


def test_names_say_nothing(model: onnx.ModelProto, expected: np.ndarray, read: Read) -> None:
    names = {x.name: f"t{i}" for i, x in enumerate(model.graph.initializer)}
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    del model.graph.input[1:]
    assert error(read(model), expected) < 1e-4


# ---- Other ways to write the same


def initializer(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    (tensor,) = (x for x in model.graph.initializer if x.name == name)
    return tensor


def node_with(model: onnx.ModelProto, name: str) -> tuple[int, onnx.NodeProto]:
    """Returns the node that has an input, and its index."""
    return next((i, x) for i, x in enumerate(model.graph.node) if name in x.input)


def untransposed(model: onnx.ModelProto) -> None:
    """Gemm with kernels of (inputs, outputs)."""
    for name in ("fc6_w_0", "fc7_w_0"):
        tensor = initializer(model, name)
        array = numpy_helper.to_array(tensor).T
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        del node_with(model, name)[1].attribute[:]


def transposed_in_the_graph(model: onnx.ModelProto) -> None:
    index, node = node_with(model, "fc7_w_0")
    node.input[1] = "turned"
    del node.attribute[:]
    model.graph.node.insert(
        index, helper.make_node("Transpose", ["fc7_w_0"], ["turned"], perm=[1, 0])
    )


def product_and_sum(model: onnx.ModelProto) -> None:
    for name in ("fc7", "fc8"):
        index, node = node_with(model, f"{name}_w_0")
        tensor = initializer(model, f"{name}_w_0")
        array = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        tensor.CopyFrom(numpy_helper.from_array(array, f"{name}_w_0"))
        product = helper.make_node("MatMul", [node.input[0], f"{name}_w_0"], [f"{name}_product"])
        operands = [f"{name}_product", f"{name}_b_0"][:: -1 if name == "fc8" else 1]
        node.CopyFrom(helper.make_node("Add", operands, list(node.output)))
        model.graph.node.insert(index, product)


def constant_nodes(model: onnx.ModelProto) -> None:
    for name in ("conv3_w_0", "fc8_b_0"):
        tensor = initializer(model, name)
        model.graph.node.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        model.graph.initializer.remove(tensor)
    del model.graph.input[1:]


def flatten(model: onnx.ModelProto) -> None:
    _, node = node_with(model, "OC2_DUMMY_1")
    node.CopyFrom(helper.make_node("Flatten", [node.input[0]], list(node.output), axis=1))
    model.graph.initializer.remove(initializer(model, "OC2_DUMMY_1"))


def typed_data(model: onnx.ModelProto) -> None:
    """Numbers one by one instead of bytes, and as doubles."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        kind = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}[array.dtype.name]
        kind = TensorProto.DOUBLE if tensor.name.startswith("fc") else kind
        made = helper.make_tensor(tensor.name, kind, array.shape, array.ravel().tolist())
        assert not made.raw_data
        tensor.CopyFrom(made)


SHARED = np.linspace(-1, 1, 8, dtype=np.float32)


def shared(model: onnx.ModelProto) -> None:
    """The biases of conv1 and conv5, both of 8 features, are one array."""
    tensor = initializer(model, "conv5_b_0")
    tensor.CopyFrom(numpy_helper.from_array(SHARED, "conv5_b_0"))
    node_with(model, "conv1_b_0")[1].input[2] = "conv5_b_0"


VARIATIONS = [
    *(untransposed, transposed_in_the_graph, product_and_sum, constant_nodes, flatten),
    *(typed_data, shared),
]


@pytest.mark.parametrize("change", VARIATIONS, ids=lambda x: x.__name__)
def test_other_ways_to_write_it(
    change: Callable[[onnx.ModelProto], None], arrays: Arrays, read: Read
) -> None:
    model = onnx_models.bvlc_alexnet(arrays)
    change(model)
    found = read(model)
    if change is shared:
        arrays = {**arrays, **{x: (arrays[x][0], SHARED) for x in ("conv1", "conv5")}}
    assert error(found, logits(arrays)) < 1e-4


def test_half_precision(model: onnx.ModelProto, arrays: Arrays, read: Read) -> None:
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    bias = read(model).params["fc6"]["bias"]
    np.testing.assert_array_equal(bias, arrays["fc6"][1].astype(np.float16).astype(np.float32))


# ---- Arrays in other files


def outside(model: onnx.ModelProto, tmp_path: Path, name: str = "a.onnx.data") -> onnx.ModelProto:
    onnx.save(
        model, tmp_path / "b.onnx", save_as_external_data=True, location=name, size_threshold=0
    )
    return onnx.load(tmp_path / "b.onnx", load_external_data=False)


def test_arrays_in_another_file(
    model: onnx.ModelProto, expected: np.ndarray, read: Read, tmp_path: Path
) -> None:
    found = read(outside(model, tmp_path))
    assert error(found, expected) < 1e-4
    assert any("a.onnx.data" in note for note in found.notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("location", "missing.data"),
        ("location", "../a.onnx.data"),
        ("location", "/etc/passwd"),
        ("location", ""),
        ("offset", "100000000"),
        ("offset", "-1"),
        ("length", "12"),
        ("length", "9" * 30),
        ("length", "x"),
    ],
)
def test_another_file_is_checked(
    key: str, value: str, model: onnx.ModelProto, read: Read, tmp_path: Path
) -> None:
    model = outside(model, tmp_path)
    entries = initializer(model, "conv3_w_0").external_data
    next(entry for entry in entries if entry.key == key).value = value
    with pytest.raises(InputError):
        read(model)


# ---- What is missing, or is something else


def changed_attribute(node_input: str, name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = node_with(model, node_input)[1]
        kept = [x for x in node.attribute if x.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return change


def renamed_operation(node_input: str, op_type: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node_with(model, node_input)[1].op_type = op_type

    return change


def cycle(model: onnx.ModelProto) -> None:
    node_with(model, "conv1_w_0")[1].input[0] = model.graph.output[0].name


def computed_weights(model: onnx.ModelProto) -> None:
    node_with(model, "conv2_w_0")[1].input[1] = "relu_1"


def reshaped_maps(model: onnx.ModelProto) -> None:
    """LRN over parts of the channels, as a Reshape before it means."""
    target = numpy_helper.from_array(np.array([2, 4, 54, 54], np.int64), "parts")
    model.graph.initializer.append(target)
    lrn_index, lrn = node_with(model, "relu_1")
    assert lrn.op_type == "LRN"
    lrn.input[0] = "parted"
    model.graph.node.insert(lrn_index, helper.make_node("Reshape", ["relu_1", "parts"], ["parted"]))


def longer_array(model: onnx.ModelProto) -> None:
    initializer(model, "conv3_w_0").dims[0] = 2**40


def unknown_type(model: onnx.ModelProto) -> None:
    initializer(model, "conv3_w_0").data_type = 99


def text_arrays(model: onnx.ModelProto) -> None:
    initializer(model, "conv3_w_0").data_type = TensorProto.STRING


def whole_numbers(model: onnx.ModelProto) -> None:
    tensor = initializer(model, "fc7_b_0")
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(24, np.int32), "fc7_b_0"))


WRONG = {
    "dilated": changed_attribute("conv3_w_0", "dilations", [2, 2]),
    "uneven padding": changed_attribute("conv3_w_0", "pads", [0, 1, 1, 2]),
    "end padding": changed_attribute("conv3_w_0", "pads", [1, 1, 2, 2]),
    "three dimensions": changed_attribute("conv3_w_0", "pads", [1] * 6),
    "automatic padding": changed_attribute("conv3_w_0", "auto_pad", "SAME_UPPER"),
    "uneven stride": changed_attribute("conv3_w_0", "strides", [1, 2]),
    "other stride": changed_attribute("conv3_w_0", "strides", [2, 2]),
    "no stride": changed_attribute("conv1_w_0", "strides", [0, 0]),
    "stride of text": changed_attribute("conv1_w_0", "strides", "ab"),
    "huge stride": changed_attribute("conv1_w_0", "strides", [2**62] * 2),
    "groups": changed_attribute("conv2_w_0", "group", 1),
    "groups of text": changed_attribute("conv2_w_0", "group", "two"),
    "scaled": changed_attribute("fc7_w_0", "alpha", 0.5),
    "no kernel_shape": changed_attribute("relu_1", "size", -5),
    "pool padding": changed_attribute("lrn_2", "pads", [1, 1, 1, 1]),
    "large end padding": changed_attribute("lrn_2", "pads", [0, 0, 9, 9]),
    "sigmoid": renamed_operation("conv_0", "Sigmoid"),
    "quantized": renamed_operation("conv_0", "DynamicQuantizeLinear"),
    "softmax inside": renamed_operation("conv_0", "Softmax"),
    "transposed features": renamed_operation("conv_0", "Transpose"),
    "division": renamed_operation("conv_0", "Div"),
    **{
        x.__name__: x
        for x in (
            *(cycle, computed_weights, reshaped_maps, longer_array, unknown_type, text_arrays),
            whole_numbers,
        )
    },
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_model_has(name: str, model: onnx.ModelProto, read: Read) -> None:
    WRONG[name](model)
    with pytest.raises(InputError):
        read(model)


def test_empty_graphs(arrays: Arrays, read: Read) -> None:
    for change in ("output", "node", "initializer", "input"):
        model = onnx_models.bvlc_alexnet(arrays)
        model.graph.ClearField(change)
        with pytest.raises(InputError):
            read(model)


def test_convolutions_only(model: onnx.ModelProto, read: Read) -> None:
    _, reshape = node_with(model, "OC2_DUMMY_1")
    model.graph.output[0].name = reshape.input[0]
    with pytest.raises(InputError, match="missing: fc6"):
        read(model)
    assert read(model, partial=True).fresh == ("fc6", "fc7", "fc8")


def test_a_truncated_file_is_refused(model: onnx.ModelProto, read: Read) -> None:
    content = model.SerializeToString()
    for length in (0, 1, 2, 3, 20, 500, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError):
            read(content[:length])


@pytest.mark.parametrize(
    "head", [b"PK\3\4", b"\x93NUMPY", b"\x0a\x07AlexNet\x12", b"\x08\1\x10\3\x18"]
)
def test_other_formats_are_not_onnx(head: bytes, tmp_path: Path) -> None:
    assert not onnx_file.matches(head + bytes(100), tmp_path)


# ---- Files of this package


def test_export_and_import_give_the_same_bits(
    model: onnx.ModelProto, expected: np.ndarray, read: Read, tmp_path: Path
) -> None:
    classes = ClassTable(tuple("abcde"), ("one", "two", "three", "four", "fünf"))
    mean = np.random.default_rng(1).uniform(90, 130, (256, 256, 3)).astype(np.float32)
    original = dataclasses.replace(read(model), classes=classes, mean=mean)
    original.config["augment.mean"] = "image_at_crop"
    del original.config["augment.channel_mean"]
    weights.write(tmp_path / "ours.onnx", "onnx", original)
    found = weights.read(tmp_path / "ours.onnx", ReadOptions())
    assert found.config == original.config
    assert found.classes == classes
    np.testing.assert_array_equal(found.mean, mean)
    for layer, parameters in original.params.items():
        for name, array in parameters.items():
            np.testing.assert_array_equal(found.params[layer][name], array)
