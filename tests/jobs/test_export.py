"""Exported models: loaded again they are the same to the last bit; programs run without us."""

import functools
import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from cases import CLASSES, make_case

import alexnet_jax
from alexnet_jax import weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.jobs.export import to_model_file, write_program
from alexnet_jax.models import create_spec, list_models
from alexnet_jax.models.layers import GroupNorm
from alexnet_jax.schema import flatten
from alexnet_jax.trained_model import TrainedModel, of_model_file
from alexnet_jax.weights import FORMATS, WRITABLE, ModelFile

ROOT = Path(__file__).parents[2]
Main = Callable[..., tuple[int, str, str]]

LABELS = ClassTable(tuple("abcdefg"), ("tench", "crane", "crane", "", "é", "f", "g"))


def trained(name: str, **config: Any) -> TrainedModel:
    """Returns a narrow model with random parameters that subtracts a mean image."""
    spec = create_spec(name)
    layers = {x.name: {"features": 8} for x in spec.layers if getattr(x, "features", 0) > 16}
    layers |= {norm.name: {"groups": 4} for norm in spec.of_kind(GroupNorm)}
    case = make_case(name, dtype="float32", layers=layers)
    size, channels = spec.input_size + 4, spec.channels
    keys = {
        "model.name": name,
        "model.num_classes": CLASSES,
        **{f"model.{path}": value for path, value in flatten({"layers": layers}).items()},
        "data.image_size": size,
        "data.channels": channels,
        "data.resize": "warp",
        "augment.mean": "image_at_crop",
        "augment.scale": 0.01,
        **config,
    }
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (size, size, channels)).astype(np.float32)
    return of_model_file(ModelFile(keys, case.params, case.batch_stats, mean, LABELS))


def images_for(model: TrainedModel, count: int) -> np.ndarray:
    shape = (count, model.image_size, model.image_size, model.model.spec.channels)
    return np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)


def assert_same(found: TrainedModel, expected: TrainedModel) -> None:
    arrays = [(x.params, x.variables.get("batch_stats", {})) for x in (found, expected)]
    jax.tree.map(np.testing.assert_array_equal, *arrays)
    jax.tree.map(np.testing.assert_array_equal, found.statistics, expected.statistics)
    for name in ("model", "image_size", "resize"):
        assert getattr(found, name) == getattr(expected, name)
    for name in ("crop_size", "scale", "mean_at_crop"):
        assert getattr(found.augmentation, name) == getattr(expected.augmentation, name)


# ---- Weight files

GUERZHOY = {
    "data.image_size": 227,
    "data.resize": "warp",
    "augment.mean": "given",
    "augment.channel_mean": (123.68, 116.779, 103.939),
    "augment.scale": 1.0,
}


def test_the_list_of_formats_is_that_of_writers() -> None:
    modules = {
        name: importlib.import_module(f"alexnet_jax.weights.{x}") for name, x in FORMATS.items()
    }
    assert set(WRITABLE) == {
        name for name, module in modules.items() if hasattr(module, "write_file")
    }


@pytest.mark.parametrize(
    ("format", "model"),
    [
        ("npz", functools.partial(trained, "paper")),
        ("npz", functools.partial(trained, "batchnorm")),
        ("onnx", functools.partial(trained, "paper")),
        ("onnx", functools.partial(trained, "cifar_11")),
        ("onnx", functools.partial(trained, "no_communication")),
        ("onnx", functools.partial(trained, "batchnorm")),
        ("onnx", functools.partial(trained, "digits", **{"augment.mean": "none"})),
        ("onnx", functools.partial(trained, "torchvision", **{"augment.scale": 0.3})),
        ("safetensors", functools.partial(trained, "torchvision")),
        ("npy", functools.partial(trained, "caffe", **GUERZHOY)),
    ],
)
def test_a_written_model_is_loaded_bit_for_bit(
    format: str, model: Callable[[], TrainedModel], tmp_path: Path
) -> None:
    expected, path = model(), tmp_path / "model"
    weights.write(path, format, to_model_file(expected))
    found = alexnet_jax.load(path)
    assert_same(found, expected)
    if format != "npy":  # which has no classes
        assert (found.class_names, found.class_labels) == LABELS
    images = images_for(found, 2)
    assert np.ptp(expected.probabilities(images), axis=0).max() > 1e-4
    np.testing.assert_array_equal(found.probabilities(images), expected.probabilities(images))


@pytest.mark.parametrize("format", ["npz", "onnx"])
def test_a_run_is_exported(format: str, finished_run: Path, tmp_path: Path, run_main: Main) -> None:
    """The run subtracts the mean color of its training split."""
    path = tmp_path / "folder" / f"run.{format}"
    code, out, _ = run_main("export", str(finished_run), str(path))
    assert code == 0
    assert f"Wrote {path}" in out
    run, found = alexnet_jax.load(finished_run), alexnet_jax.load(path)
    assert_same(found, run)
    assert found.class_names == run.class_names
    again = tmp_path / "again"
    assert run_main("export", str(path), str(again), f"--config.export.format={format}")[0] == 0
    assert_same(alexnet_jax.load(again), run)


# ---- StableHLO

RUN_WITHOUT_PACKAGE = """
import json, sys
sys.modules["alexnet_jax"] = None  # importing it is an error
import jax, jax.export, numpy as np
program, images, output = sys.argv[1:]
exported = jax.export.deserialize(open(program, "rb").read())
np.save(output, exported.call(np.load(images)))
assert "flax" not in sys.modules
"""


def test_a_program_runs_without_this_package(
    finished_run: Path, tmp_path: Path, run_main: Main
) -> None:
    program = tmp_path / "model.stablehlo"
    assert run_main("export", str(finished_run), str(program))[0] == 0
    run = alexnet_jax.load(finished_run)
    images = images_for(run, 5)
    np.save(tmp_path / "images.npy", images)
    arguments = [program, tmp_path / "images.npy", tmp_path / "found.npy"]
    command = [sys.executable, "-I", "-c", RUN_WITHOUT_PACKAGE, *map(str, arguments)]
    subprocess.run(command, check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npy")
    np.testing.assert_allclose(found, run.probabilities(images), rtol=1e-5, atol=1e-7)
    assert np.ptp(found, axis=0).max() > 1e-3

    description = json.loads((tmp_path / "model.stablehlo.json").read_text())
    assert description["input"] == {"dtype": "uint8", "shape": ["batch", 28, 28, 1]}
    assert description["platforms"] == ["cpu", "cuda", "tpu"]
    assert tuple(description["classes"]["ids"]) == run.class_names
    assert description["config"]["data.resize"] == run.resize


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("torchvision", "cifar_11") else pytest.param(name, marks=pytest.mark.slow)
        for name in list_models()
    ],
)
def test_every_model_becomes_a_program(name: str, tmp_path: Path) -> None:
    model = trained(name)
    program, _ = write_program(tmp_path / "program", model)
    exported = jax.export.deserialize(program.read_bytes())
    images = images_for(model, 3)
    expected = model.probabilities(images)
    assert expected.max() < 0.99
    np.testing.assert_allclose(exported.call(images), expected, rtol=1e-4, atol=1e-6)


# ---- Documentation

CODE = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/weights.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("code", CODE, ids=range(len(CODE)))
def test_documented_code_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "onnxruntime" in code:
        pytest.importorskip("onnxruntime", reason="needs the parity extra: make parity")
    pixels = {"data.image_size": 256, "augment.mean": "given", "augment.channel_mean": (9.0,) * 3}
    model = trained("torchvision", **pixels)
    weights.write(tmp_path / "model.onnx", "onnx", to_model_file(model))
    write_program(tmp_path / "model.stablehlo", model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/weights.md", "exec"), names)
    expected = model.probabilities(np.zeros((8, 256, 256, 3), np.uint8))
    np.testing.assert_allclose(names["probabilities"], expected, rtol=1e-4, atol=1e-6)


# ---- Errors


def test_errors(finished_run: Path, tmp_path: Path, run_main: Main) -> None:
    for words, part in (
        ([], "export.format"),
        ([str(tmp_path / "model.pth")], "export.format"),
        ([str(tmp_path), "--config.export.format=npz"], "export.output"),
        ([str(tmp_path / "x.safetensors")], "npz holds any model"),
        ([str(tmp_path / "x.npy")], "npz holds any model"),
    ):
        code, _, err = run_main("export", str(finished_run), *words)
        assert code == 2
        assert part in err
    assert not list(tmp_path.iterdir())


def test_the_default_file_is_in_the_workdir(
    tmp_path: Path, run_main: Main, finished_run: Path
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    code, out, _ = run_main("export", str(workdir), "--config.export.format=npz")
    assert code == 0
    assert f"Wrote {workdir}/model.npz" in out
    assert_same(alexnet_jax.load(workdir / "model.npz"), alexnet_jax.load(workdir))
