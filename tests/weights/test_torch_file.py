"""Files of PyTorch, written without it; tests/parity compares with PyTorch itself."""

import struct
from collections.abc import Callable
from pathlib import Path

import narrow_models
import numpy as np
import pytest
import torch_archive
from narrow_models import CAFFE, TORCHVISION, Arrays

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.weights import ReadOptions

CONVOLUTIONS = {"torchvision": (0, 3, 6, 8, 10), "jiecaoyu": (0, 4, 8, 10, 12)}
DENSE = {"torchvision": (1, 4, 6), "jiecaoyu": (0, 3, 6)}


def prefixes(kind: str, features: str = "features.", classifier: str = "classifier.") -> dict:
    found = {f"conv{i}": f"{features}{at}." for i, at in enumerate(CONVOLUTIONS[kind], 1)}
    return found | {f"fc{i}": f"{classifier}{at}." for i, at in enumerate(DENSE[kind], 6)}


def state_of(kind: str = "torchvision") -> Arrays:
    geometry = CAFFE if kind == "jiecaoyu" else TORCHVISION
    return narrow_models.renamed(narrow_models.make_arrays(geometry), prefixes(kind))


def assert_read(content: bytes, folder: Path) -> None:
    """Asserts that a file is read to the narrow torchvision model's arrays."""
    path = folder / "model.bin"
    path.write_bytes(content)
    found = weights.read(path, ReadOptions())
    arrays = narrow_models.make_arrays()
    np.testing.assert_array_equal(
        found.params["conv2"]["kernel"], arrays["conv2.weight"].transpose(2, 3, 1, 0)
    )
    assert found.config["model.name"] == "torchvision"
    for layer, parameters in found.params.items():
        np.testing.assert_array_equal(parameters["bias"], arrays[f"{layer}.bias"])


@pytest.mark.parametrize("write", [torch_archive.archive_of, torch_archive.stream_of])
def test_a_state_dict(write: Callable[[Arrays], bytes], tmp_path: Path) -> None:
    assert_read(write(state_of()), tmp_path)


@pytest.mark.parametrize(
    ("features", "classifier"),
    [
        ("features.module.", "classifier."),
        ("module.features.", "module.classifier."),
        ("module.features.module.", "module.classifier."),
    ],
)
def test_prefixes_of_models_in_parallel(features: str, classifier: str, tmp_path: Path) -> None:
    names = prefixes("torchvision", features, classifier)
    arrays = narrow_models.renamed(narrow_models.make_arrays(), names)
    assert_read(torch_archive.archive_of(arrays), tmp_path)


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_training_checkpoint(key: str, tmp_path: Path) -> None:
    arrays = state_of()
    state = torch_archive.state_dict(torch_archive.tensors(arrays))
    text, number = torch_archive.text, torch_archive.number
    value = b"}(" + text("epoch") + number(3) + text(key) + state + text("arch") + b"Nu"
    content = torch_archive.archive(value, [array.tobytes() for array in arrays.values()])
    assert_read(content, tmp_path)


def test_items_as_python_2_gives_them(tmp_path: Path) -> None:
    arrays = state_of()
    pairs = torch_archive.tensors(arrays, legacy=True).items()
    items = b"".join(b"](" + torch_archive.text(name) + value + b"e" for name, value in pairs)
    value = b"ccollections\nOrderedDict\n](" + items + b"e\x85R"
    assert_read(torch_archive.stream(value, list(arrays.values())), tmp_path)


def test_tensors_that_are_views_of_one_storage(tmp_path: Path) -> None:
    arrays = state_of()
    parts, start = {}, 0
    storage = "FloatStorage", sum(array.size for array in arrays.values())
    for name, array in arrays.items():
        array = array.T if array.ndim == 2 else array  # transposed by its strides
        strides = tuple(stride // 4 for stride in np.ascontiguousarray(array).strides)
        flipped = array.ndim == 2
        shape, strides = (array.shape[::-1], strides[::-1]) if flipped else (array.shape, strides)
        parts[name] = torch_archive.tensor("0", storage, shape, strides, start)
        start += array.size
    data = b"".join((a.T if a.ndim == 2 else a).tobytes() for a in arrays.values())
    assert_read(torch_archive.archive(torch_archive.state_dict(parts), [data]), tmp_path)


def test_jiecaoyu_is_caffes_model(tmp_path: Path) -> None:
    path = tmp_path / "alexnet.pth.tar"
    path.write_bytes(torch_archive.archive_of(state_of("jiecaoyu")))
    found = weights.read(path, ReadOptions())
    expected = narrow_models.make_arrays(CAFFE)["conv1.weight"][:, ::-1].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found.params["conv1"]["kernel"], expected)
    assert found.config["model.name"] == "caffe"
    assert found.config["data.resize"] == "warp"
    assert "model.layers.conv2.groups" not in found.config  # the model's own


def test_preprocessing_of_the_half_width_model(tmp_path: Path) -> None:
    geometry = TORCHVISION._replace(widths=(48, 128, 192, 192, 128))
    arrays = narrow_models.renamed(narrow_models.make_arrays(geometry), prefixes("torchvision"))
    path = tmp_path / "half.pth"
    path.write_bytes(torch_archive.archive_of(arrays))
    config = weights.read(path, ReadOptions()).config
    assert config["augment.channel_std"] == (127.5, 127.5, 127.5)
    assert config["data.image_size"] == 224
    path.write_bytes(torch_archive.archive_of(state_of()))
    assert weights.read(path, ReadOptions()).config["data.image_size"] == 256


def refused(content: bytes, folder: Path) -> str:
    path = folder / "model.pth"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        weights.read(path, ReadOptions())
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_hostile_file_is_refused(tmp_path: Path) -> None:
    made = tmp_path / "made"
    command = b"cos\nmkdir\n(" + torch_archive.text(str(made)) + b"tR"
    assert "os.mkdir" in refused(torch_archive.archive(command, []), tmp_path)
    assert "os.mkdir" in refused(torch_archive.stream(command, []), tmp_path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((10,), (1,), 0),
        ((9,), (1,), 1),
        ((3, 3), (4, 1), 0),
        ((-1,), (1,), 0),
        ((2,), (-1,), 3),
        ((9,), (0,), 9),
        ((2**30, 2**30), (0, 0), 0),
        ((3,), (1, 1), 0),
        ((3,), (1,), -1),
        ((1,) * 9, (1,) * 9, 0),
        ((0,), (1,), 0),
    ],
)
def test_tensors_outside_their_storage_are_refused(
    shape: tuple[int, ...], strides: tuple[int, ...], offset: int, tmp_path: Path
) -> None:
    storage = "FloatStorage", 9
    value = torch_archive.tensor("0", storage, shape, strides, offset)
    content = torch_archive.archive(torch_archive.state_dict({"a": value}), [bytes(36)])
    assert "damaged" in refused(content, tmp_path)


def test_damage_is_found(tmp_path: Path) -> None:
    arrays = state_of()
    content = torch_archive.archive_of(arrays)
    start = content.index(arrays["features.6.weight"].tobytes())
    flipped = content[:start] + bytes([content[start] ^ 1]) + content[start + 1 :]
    assert "CRC" in refused(flipped, tmp_path)
    refused(content[:-100], tmp_path)
    stream = torch_archive.stream_of(arrays)
    assert "length" in refused(stream[:-1], tmp_path)
    assert "continues" in refused(stream + b"\0", tmp_path)
    huge = stream.replace(struct.pack("<q", arrays["features.0.weight"].size), b"\xff" * 8, 1)
    assert "length" in refused(huge, tmp_path)


def test_storages_that_are_missing_or_short_are_refused(tmp_path: Path) -> None:
    value = torch_archive.state_dict(
        {"a": torch_archive.tensor("0", ("FloatStorage", 9), (9,), (1,))}
    )
    assert "missing" in refused(torch_archive.archive(value, []), tmp_path)
    assert "length" in refused(torch_archive.archive(value, [bytes(35)]), tmp_path)
    unknown = value.replace(b"FloatStorage", b"EvilStorage")
    assert "EvilStorage" in refused(torch_archive.archive(unknown, [bytes(36)]), tmp_path)


@pytest.mark.parametrize("value", [b"N", b"]", b"K\x01", b"}" + torch_archive.text("a") + b"Ns"])
def test_a_file_without_a_state_dict(value: bytes, tmp_path: Path) -> None:
    assert "state_dict" in refused(torch_archive.archive(value, []), tmp_path)


def test_a_tensor_with_and_without_the_prefix(tmp_path: Path) -> None:
    arrays = state_of()
    arrays["module.features.0.bias"] = arrays["features.0.bias"]
    assert "twice" in refused(torch_archive.archive_of(arrays), tmp_path)


def test_names_of_another_model(tmp_path: Path) -> None:
    arrays = {"layer1.0.weight": np.zeros((2, 2), np.float32)}
    assert "layer1.0.weight" in refused(torch_archive.archive_of(arrays), tmp_path)
