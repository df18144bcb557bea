"""npz, safetensors and Orbax folders: what was written is read back bit for bit."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import narrow_models
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization
from safetensors.numpy import save_file

from alexnet_jax import weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.errors import InputError
from alexnet_jax.models import create_model, create_spec, parameter_shapes
from alexnet_jax.weights import ModelFile, ReadOptions, archive

CLASSES = ClassTable(("n1", "n2", "n3", "n4", "n5"), ("tench", "goldfish", "crane", "crane", "é"))
NARROW = {f"model.layers.conv{i}.features": 8 for i in range(1, 6)} | {
    f"model.layers.fc{i}.features": 16 for i in (6, 7)
}


def model_of(name: str, **config: Any) -> ModelFile:
    """Returns a narrow model with random parameters."""
    tree = {"name": name, "layers": {x.split(".")[2]: {"features": v} for x, v in NARROW.items()}}
    shapes = parameter_shapes(create_spec(**tree), 5)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    config = {"model.name": name, "model.num_classes": 5, **NARROW, **config}
    return ModelFile(config, params, classes=CLASSES)


def assert_same(found: ModelFile, expected: ModelFile) -> None:
    for name in ("params", "batch_stats"):
        trees = getattr(found, name), getattr(expected, name)
        assert jax.tree.structure(trees[0]) == jax.tree.structure(trees[1])
        jax.tree.map(np.testing.assert_array_equal, *trees)
    assert found.config == expected.config
    assert found.classes == expected.classes
    if expected.mean is not None:
        np.testing.assert_array_equal(found.mean, expected.mean)
    assert found.fresh == expected.fresh == ()


MEAN = np.random.default_rng(1).uniform(0, 255, (256, 256, 3)).astype(np.float32)
PIXELS = {"augment.mean": "given", "augment.channel_mean": (1.5, 2.25, 3.0), "data.resize": "warp"}


@pytest.mark.parametrize("name", ["paper", "caffe", "torchvision", "six_conv", "no_communication"])
def test_npz_holds_any_model(name: str, tmp_path: Path) -> None:
    if name == "no_communication":
        model = model_of(name, **PIXELS)
    else:
        model = dataclasses.replace(model_of(name, **{"augment.mean": "image"}), mean=MEAN)
    weights.write(tmp_path / "model.npz", "npz", model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
    assert_same(weights.read(tmp_path / "model.npz", ReadOptions()), model)


def test_npz_holds_running_statistics(tmp_path: Path) -> None:
    model = model_of("batchnorm")
    norms = [layer for layer in model.params if layer.endswith("_norm")]
    stats = {
        layer: {"mean": model.params[layer]["bias"] + 1, "var": model.params[layer]["scale"] ** 2}
        for layer in norms
    }
    model = dataclasses.replace(model, batch_stats=stats)
    weights.write(tmp_path / "model.npz", "npz", model)
    found = weights.read(tmp_path / "model.npz", ReadOptions())
    assert_same(found, model)
    flax_model = create_model(
        "batchnorm", 5, layers={x.split(".")[2]: {"features": v} for x, v in NARROW.items()}
    )
    variables = {"params": found.params, "batch_stats": found.batch_stats}
    images = jnp.zeros((1, 227, 227, 3))
    assert jax.eval_shape(flax_model.apply, variables, images).shape == (1, 5)
    arrays = dict(np.load(tmp_path / "model.npz"))
    del arrays["batch_stats/conv1_norm/mean"]
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(InputError, match="missing: batch_stats/conv1_norm/mean"):
        weights.read(tmp_path / "less.npz", ReadOptions())


def test_partial_npz(tmp_path: Path) -> None:
    model = model_of("caffe")
    arrays = {
        f"conv{i}/{x}": model.params[f"conv{i}"][x] for i in range(1, 6) for x in ("kernel", "bias")
    }
    np.savez(tmp_path / "convolutions.npz", **arrays)
    with pytest.raises(InputError, match=r"weights\.partial=True accepts"):
        weights.read(tmp_path / "convolutions.npz", ReadOptions(model="caffe"))
    options = ReadOptions(model="caffe", partial=True)
    found = weights.read(tmp_path / "convolutions.npz", options)
    assert found.fresh == ("fc6", "fc7", "fc8")
    assert found.classes is not None
    assert len(found.classes.ids) == 1000


def test_npz_is_read_by_numpy_alone(tmp_path: Path) -> None:
    model = model_of("torchvision", **PIXELS)
    weights.write(tmp_path / "model.npz", "npz", model)
    with np.load(tmp_path / "model.npz") as arrays:
        np.testing.assert_array_equal(arrays["conv1/kernel"], model.params["conv1"]["kernel"])
        assert json.loads(str(arrays["metadata"]))["classes"]["labels"][1] == "goldfish"


def full_size(name: str) -> dict[str, np.ndarray]:
    """Returns arrays of a model's own widths without its metadata; all their bytes are zeros."""
    shapes = parameter_shapes(create_spec(name), 1000)
    return {
        f"{layer}/{parameter}": np.broadcast_to(np.float32(0), shape.shape)
        for layer, parameters in shapes.items()
        for parameter, shape in parameters.items()
    }


def test_npz_without_metadata_is_recognized_by_its_shapes(tmp_path: Path) -> None:
    arrays = full_size("cifar_18")
    np.savez(tmp_path / "plain.npz", **{f"params/{name}": array for name, array in arrays.items()})
    with pytest.raises(InputError, match=r"cifar_19, cifar_18\)"):
        weights.read(tmp_path / "plain.npz", ReadOptions())
    found = weights.read(tmp_path / "plain.npz", ReadOptions(model="cifar_18"))
    assert found.config["data.image_size"] == 32
    np.savez(tmp_path / "digits.npz", **full_size("digits"))
    found = weights.read(tmp_path / "digits.npz", ReadOptions())
    assert found.config["model.name"] == "digits"
    assert found.config["data.channels"] == 1


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_npz(compressed: bool, tmp_path: Path) -> None:
    save = np.savez_compressed if compressed else np.savez
    path = tmp_path / "model.npz"
    save(path, **{"conv1/kernel": np.arange(1000.0)})
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    with pytest.raises(InputError, match="damaged"):
        weights.read(path, ReadOptions())


def member(array: Any, *, shape: str | None = None) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    data = file.getvalue()
    return data.replace(b"(3,)", shape.encode()) if shape else data


@pytest.mark.parametrize(
    "data",
    [
        member(np.array([{}], object)),
        member(np.arange(3), shape="(9,)"),
        member(np.arange(3), shape="(2,)"),
        member(np.arange(3), shape="(-3)"),
        member(np.arange(3)).replace(b"'<i8'", b"'|O' "),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_members_that_are_no_plain_arrays(data: bytes, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        archive.writestr("conv1/kernel.npy", data)
    with pytest.raises(InputError, match="damaged"):
        weights.read(tmp_path / "model.npz", ReadOptions())


def test_an_archive_that_unpacks_to_very_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 2**16)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(2**20))
    with pytest.raises(InputError, match="refused"):
        weights.read(tmp_path / "bomb.npz", ReadOptions())


@pytest.mark.parametrize(
    "metadata",
    [
        "{",
        "[1]",
        "[" * 100_000,
        '{"config": {}, "classes": null}',
        '{"config": {"model.name": 3}, "classes": null}',
        '{"config": {"model.name": "papr"}, "classes": null}',
        '{"config": {"model.name": "paper", "model.wings": 2}, "classes": null}',
        '{"config": {"model.name": "paper"}, "classes": {"ids": [1], "labels": [2]}}',
        '{"config": {"model.name": "paper"}, "classes": {"ids": ["a"]}}',
    ],
)
def test_metadata_that_are_not_ours(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    np.savez(path, metadata=np.array(metadata))
    with pytest.raises(InputError):
        weights.read(path, ReadOptions())


def test_metadata_set_keys_of_the_model_and_its_preprocessing_only(tmp_path: Path) -> None:
    model = model_of("torchvision", **{"data.root": "/etc", "job": "train", "augment.scale": 0.5})
    weights.write(tmp_path / "model.npz", "npz", model)
    config = weights.read(tmp_path / "model.npz", ReadOptions()).config
    assert config == {**model_of("torchvision").config, "augment.scale": 0.5}


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = model_of("torchvision", **PIXELS)
    weights.write(path, "safetensors", model)
    assert_same(weights.read(path, ReadOptions()), model)
    model = dataclasses.replace(model_of("torchvision", **{"augment.mean": "image"}), mean=MEAN)
    weights.write(path, "safetensors", model)
    assert_same(weights.read(path, ReadOptions()), model)
    with pytest.raises(InputError, match="npz"):
        weights.write(path, "safetensors", model_of("paper"))


def test_safetensors_of_others(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    arrays = narrow_models.torchvision_arrays()
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    found = weights.read(path, ReadOptions())
    expected = arrays["features.3.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found.params["conv2"]["kernel"], expected)
    assert found.config["data.resize"] == "torchvision"
    save_file({"features.0.weight": np.arange(4)}, path)
    with pytest.raises(InputError, match="different"):
        weights.read(path, ReadOptions(partial=True))


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(
        {name: np.ascontiguousarray(x) for name, x in narrow_models.torchvision_arrays().items()},
        path,
    )
    content = path.read_bytes()
    for damaged in (
        content[:-1],
        content[:50],
        content[:8] + b"{" * 100 + content[108:],
        b"\xff" * 4 + content[4:],
        content.replace(b'"dtype"', b'"dtyqe"', 1),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            weights.read(path, ReadOptions())


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_orbax_folder(wrapped: bool, tmp_path: Path) -> None:
    model = model_of("torchvision")
    tree: dict[str, Any] = jax.tree.map(jnp.asarray, model.params)
    tree = {"params": tree, "step": 3, "opt_state": [{"a": jnp.ones(2)}, None]} if wrapped else tree
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", tree)
    found = weights.read(tmp_path / "run", ReadOptions(model="torchvision"))
    jax.tree.map(np.testing.assert_array_equal, found.params, model.params)
    with pytest.raises(InputError, match="fits several"):
        weights.read(tmp_path / "run", ReadOptions())


def test_layers_that_flax_named(tmp_path: Path) -> None:
    model = model_of("torchvision")
    names = {f"conv{i + 1}": f"Conv_{i}" for i in range(5)} | {
        f"fc{i + 6}": f"Dense_{i}" for i in range(3)
    }
    tree = {"params": {names[layer]: parameters for layer, parameters in model.params.items()}}
    with ocp.CheckpointManager(tmp_path / "runs") as manager:
        manager.save(7, args=ocp.args.StandardSave(tree))
    found = weights.read(tmp_path / "runs" / "7", ReadOptions(model="torchvision"))
    jax.tree.map(np.testing.assert_array_equal, found.params, model.params)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_flax_file(wrapped: bool, tmp_path: Path) -> None:
    model = model_of("torchvision")
    tree = {"step": 3, "params": model.params, "opt_state": {}} if wrapped else model.params
    path = tmp_path / "checkpoint_3"
    path.write_bytes(serialization.to_bytes(tree))
    found = weights.read(path, ReadOptions(model="torchvision"))
    jax.tree.map(np.testing.assert_array_equal, found.params, model.params)
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"1", content.replace(b"float32", b"float99", 1)):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            weights.read(path, ReadOptions(model="torchvision"))


def test_a_damaged_orbax_folder(tmp_path: Path) -> None:
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "run", {"conv1": {"kernel": np.ones(1000)}})
    for path in (tmp_path / "run").rglob("d/*"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="Orbax cannot restore"):
        weights.read(tmp_path / "run", ReadOptions())
