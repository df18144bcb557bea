"""Caffe's files, written byte by byte, give the logits that numpy computes from their arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import caffe_numpy
import imported
import numpy as np
import pytest
from caffe_numpy import Arrays, Layer, Style, data, number

import alexnet_jax
from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.weights import ModelFile, ReadOptions, caffe_file

LAYERS = caffe_numpy.network()
Read = Callable[..., ModelFile]
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
def read(tmp_path: Path) -> Read:
    def read_bytes(content: bytes, **options: Any) -> ModelFile:
        file = tmp_path / "a.caffemodel"
        file.write_bytes(content)
        return weights.read(file, ReadOptions(**options))

    return read_bytes


def error(model_file: ModelFile, layers: list[Layer], arrays: Arrays, size: int = 227) -> float:
    """Returns the relative error of the logits."""
    expected = caffe_numpy.logits(layers, arrays, imported.planes(size))
    return imported.difference(model_file, expected, size, "bgr")


@pytest.mark.parametrize("style", STYLES)
def test_all_styles_hold_the_same(style: Style, arrays: Arrays, read: Read) -> None:
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


def test_logits_of_alexnet(arrays: Arrays, read: Read) -> None:
    found = read(caffe_numpy.encode(LAYERS, arrays, Style(1, legacy_dims=True)))
    assert error(found, LAYERS, arrays) < 1e-4


def test_logits_of_caffenet(arrays: Arrays, read: Read) -> None:
    """Its pools come before its norms, which only the order of its layers says."""
    layers = caffe_numpy.network("caffenet")
    found = read(caffe_numpy.encode(layers, arrays))
    assert found.config["model.name"] == "caffenet"
    assert error(found, layers, arrays) < 1e-4
    assert error(found, LAYERS, arrays) > 1e-3


def test_pools_round_up_where_that_matters(read: Read) -> None:
    arrays = caffe_numpy.make_arrays(LAYERS, size=224)
    found = read(caffe_numpy.encode(LAYERS, arrays, transform=number(3, 224)))
    assert found.config["model.input_size"] == 224
    assert found.config["model.layers.pool1.ceil_mode"] is True
    assert error(found, LAYERS, arrays, size=224) < 1e-4


def test_other_fields_than_the_variants(arrays: Arrays, read: Read) -> None:
    changes = {"norm1": {"local_size": 5, "alpha": 3e-4, "beta": 0.5}, "conv2": {"group": 1}}
    layers = [x._replace(fields={**x.fields, **changes.get(x.name, {})}) for x in LAYERS]
    arrays = caffe_numpy.make_arrays(layers)
    found = read(caffe_numpy.encode(layers, arrays))
    assert found.config["model.layers.norm1.alpha"] == pytest.approx(3e-4 / 5)
    assert found.config["model.layers.conv2.groups"] == 1
    assert error(found, layers, arrays) < 1e-4
    usual = [x._replace(fields=LAYERS[4].fields) if x.name == "norm1" else x for x in layers]
    assert usual != layers
    assert error(found, usual, arrays) > 1e-3


@pytest.mark.parametrize("name", caffe_numpy.SWAPS)
def test_a_swap_changes_the_logits(name: str, arrays: Arrays, read: Read) -> None:
    kernel, bias = arrays[name]
    swapped = {**arrays, name: (caffe_numpy.SWAPS[name](kernel), bias)}
    assert error(read(caffe_numpy.encode(LAYERS, swapped)), LAYERS, arrays) > 1e-2


def test_classes_may_have_another_layer_name(arrays: Arrays, read: Read) -> None:
    layers = [x._replace(name="fc8_flickr") if x.name == "fc8" else x for x in LAYERS]
    renamed = {("fc8_flickr" if name == "fc8" else name): x for name, x in arrays.items()}
    found = read(caffe_numpy.encode(layers, renamed))
    assert error(found, LAYERS, arrays) < 1e-4


def test_dense_kernels_may_be_transposed(arrays: Arrays, read: Read) -> None:
    layers = [
        x._replace(fields={**x.fields, "transpose": 1}) if x.name == "fc7" else x for x in LAYERS
    ]
    kernel, bias = arrays["fc7"]
    transposed = {**arrays, "fc7": (np.ascontiguousarray(kernel.T), bias)}
    assert error(read(caffe_numpy.encode(layers, transposed)), LAYERS, arrays) < 1e-4


# ---- Preprocessing


def test_the_mean_color_is_caffes(arrays: Arrays, read: Read) -> None:
    config = read(caffe_numpy.encode(LAYERS, arrays)).config
    assert (config["data.image_size"], config["data.resize"]) == (256, "warp")
    assert config["augment.channel_mean"] == (122.6789143, 116.6687676, 104.0069879)  # RGB


def test_the_mean_color_and_scale_of_the_file(arrays: Arrays, read: Read) -> None:
    transform = (
        number(1, 0.5) + number(3, 227) + b"".join(number(5, x) for x in (104.0, 117.0, 123.0))
    )
    config = read(caffe_numpy.encode(LAYERS, arrays, transform=transform)).config
    assert config["augment.channel_mean"] == (123.0, 117.0, 104.0)
    assert config["augment.scale"] == 0.5


def test_the_mean_image(arrays: Arrays, read: Read, tmp_path: Path) -> None:
    mean = np.random.default_rng(5).uniform(90, 130, (3, 256, 256)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(caffe_numpy.mean_file(mean))
    content = caffe_numpy.encode(LAYERS, arrays)
    found = read(content, mean=str(tmp_path / "mean.binaryproto"))
    assert found.config["augment.mean"] == "image_at_crop"
    assert "augment.channel_mean" not in found.config
    np.testing.assert_array_equal(found.mean, mean[::-1].transpose(1, 2, 0))
    rgb = read(content, mean=str(tmp_path / "mean.binaryproto"), channel_order="rgb")
    np.testing.assert_array_equal(rgb.mean, mean.transpose(1, 2, 0))
    np.testing.assert_array_equal(
        rgb.params["conv1"]["kernel"], found.params["conv1"]["kernel"][:, :, ::-1]
    )


def test_from_pixels_to_logits(arrays: Arrays, tmp_path: Path) -> None:
    """Caffe subtracts the mean image from BGR pixels, then crops."""
    mean = np.random.default_rng(5).uniform(90, 130, (3, 256, 256)).astype(np.float32)
    (tmp_path / "mean.binaryproto").write_bytes(caffe_numpy.mean_file(mean))
    (tmp_path / "a.caffemodel").write_bytes(caffe_numpy.encode(LAYERS, arrays))
    model = alexnet_jax.load(tmp_path / "a.caffemodel", mean=str(tmp_path / "mean.binaryproto"))
    pixels = np.random.default_rng(6).integers(0, 256, (256, 256, 3), np.uint8)
    crop = (pixels[..., ::-1].transpose(2, 0, 1) - mean)[:, 14:241, 14:241]
    expected = caffe_numpy.logits(LAYERS, arrays, crop)
    found = np.asarray(model.logits(pixels[None]))[0]
    assert np.linalg.norm(found - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize(
    "content", [b"", b"\x08\x03", b"JFIF", caffe_numpy.mean_file(imported.planes(9)[:2])]
)
def test_another_file_for_the_mean(
    content: bytes, arrays: Arrays, read: Read, tmp_path: Path
) -> None:
    (tmp_path / "mean.binaryproto").write_bytes(content)
    with pytest.raises(InputError):
        read(caffe_numpy.encode(LAYERS, arrays), mean=str(tmp_path / "mean.binaryproto"))


# ---- What is missing, or is something else


def test_convolutions_only(arrays: Arrays, read: Read) -> None:
    first = [x for x in LAYERS if not x.name.startswith(("fc", "drop", "relu6", "relu7", "loss"))]
    content = caffe_numpy.encode(first, arrays)
    with pytest.raises(InputError, match="missing: fc6"):
        read(content)
    found = read(content, partial=True)
    assert found.fresh == ("fc6", "fc7", "fc8")
    np.testing.assert_array_equal(found.params["conv5"]["bias"], arrays["conv5"][1])


def test_the_model_is_checked(arrays: Arrays, read: Read) -> None:
    content = caffe_numpy.encode(LAYERS, arrays)
    assert read(content, model="ungrouped").config["model.layers.conv4.groups"] == 2
    with pytest.raises(InputError, match="caffenet"):
        read(content, model="caffenet")
    with pytest.raises(InputError, match="'caffe'"):
        read(content, model="cafe")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("relu1", Layer("relu1", "ReLU", {"negative_slope": 0.1})),
        ("relu1", Layer("sigmoid1", "Sigmoid")),
        ("norm1", Layer("norm1", "LRN", {"local_size": 3, "norm_region": 1})),
        ("norm1", Layer("norm1", "LRN", {"local_size": 0})),
        ("norm1", Layer("norm1", "LRN", {"alpha": float("nan")})),
        ("pool5", Layer("pool5", "Pooling", {"pool": 2, "kernel_size": 3, "stride": 2})),
        ("pool5", Layer("pool5", "Pooling", {"kernel_size": 3, "stride": 0})),
        ("pool5", Layer("pool5", "Pooling", {"kernel_size": 30, "stride": 2})),
        ("pool5", Layer("pool5", "Pooling", {"kernel_size": 3, "stride": 2, "pad": 1})),
        ("conv4", Layer("conv4", "Convolution", {"num_output": 12, "kernel_size": 3, "pad": 1})),
        ("conv3", Layer("conv3", "Convolution", {"num_output": 16, "kernel_size": 5, "pad": 2})),
        ("conv3", Layer("conv3", "Convolution", {"num_output": 9, "kernel_size": 3, "pad": 1})),
        ("conv3", Layer("conv3", "Convolution", {"num_output": 16, "pad": 1})),
        ("fc7", Layer("fc7", "InnerProduct", {"num_output": 23})),
    ],
)
def test_what_no_model_has(name: str, changed: Layer, arrays: Arrays, read: Read) -> None:
    layers = [changed if x.name == name else x for x in LAYERS]
    with pytest.raises(InputError):
        read(caffe_numpy.encode(layers, arrays))


def test_a_missing_bias_is_listed(arrays: Arrays, read: Read) -> None:
    without: Any = {**arrays, "conv3": arrays["conv3"][:1]}
    with pytest.raises(InputError, match="missing: conv3"):
        read(caffe_numpy.encode(LAYERS, without))


def test_branches_are_refused(arrays: Arrays, read: Read) -> None:
    content = caffe_numpy.encode(LAYERS, arrays)
    bottom = data(3, b"conv3") + data(4, b"conv4")
    assert content.count(bottom) == 1
    with pytest.raises(InputError, match="conv4"):
        read(content.replace(bottom, data(3, b"pool2") + data(4, b"conv4")))


@pytest.mark.parametrize("style", [Style(1, legacy_dims=True), Style(2)], ids=["v1", "v2"])
def test_a_truncated_file_is_refused(style: Style, arrays: Arrays, read: Read) -> None:
    content = caffe_numpy.encode(LAYERS, arrays, style)
    for length in (0, 1, 9, 30, 1000, len(content) // 2, len(content) - 40, len(content) - 30):
        with pytest.raises(InputError):
            read(content[:length])


@pytest.mark.parametrize("dims", [(8, 3, 11, 10), (2**31 - 1,) * 4, (2**64 - 1, 3, 11, 11), ()])
@pytest.mark.parametrize("legacy", [True, False])
def test_dimensions_are_checked(dims: tuple[int, ...], legacy: bool, read: Read) -> None:
    """Numbers that do not fit the bytes are refused before memory is taken."""
    shape = b"".join(number(i, n) for i, n in enumerate(dims, 1))
    shape = shape if legacy else data(7, data(1, b"".join(map(caffe_numpy.varint, dims))))
    blob = data(7, shape + data(5, bytes(4 * 8 * 3 * 11 * 11)))
    convolution = data(106, number(1, 8) + number(4, 11) + number(6, 4))
    layer = data(1, b"conv1") + data(2, b"Convolution") + blob + convolution
    with pytest.raises(InputError):
        read(data(1, b"net") + data(100, layer), partial=True)


@pytest.mark.parametrize(
    "head", [b"PK\3\4", b"\x93NUMPY", b"\x80\x02}", b"\x08\x07\x12\x07pytorch"]
)
def test_other_formats_are_not_caffes(head: bytes, tmp_path: Path) -> None:
    assert not caffe_file.matches(head + bytes(100), tmp_path)
