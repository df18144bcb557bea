"""Damaged and hostile weight files give the arrays that their bytes hold, or an error.

`damaged_files` has the files, the damage and the independent readers.
"""

import json
import os
import pickle
import resource
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import damaged_files
import declared_sizes
import hostile_pickles
import numpy as np
import onnx
import pytest
import safetensors.numpy
import torch_archive
from damaged_files import SAMPLES, Params, Sample
from hostile_pickles import POSITIONS

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.weights import ModelFile, ReadOptions

FEW, MANY = 3, 110  # damaged files of each sample
SECONDS = 5  # of processor time, for one file
MEMORY = 2**30  # bytes that this process may grow by
MESSAGE = 4000  # characters
CASES = pytest.mark.parametrize("name", SAMPLES)


class TooSlow(BaseException):
    """No reader catches it."""


@contextmanager
def limited() -> Iterator[None]:
    """Raises TooSlow in code that takes too much processor time."""

    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def read(path: Path, **options: Any) -> ModelFile | InputError:
    """Returns a file's model, or the error, which must be short and not due to missing memory."""
    with limited():
        try:
            return weights.read(path, ReadOptions(**options))
        except InputError as caught:
            error: BaseException | None = caught
    message = str(error)
    assert len(message) < MESSAGE, message[:MESSAGE]
    result = error
    while error is not None:
        assert not isinstance(error, MemoryError), message
        error = error.__cause__ or error.__context__
    assert isinstance(result, InputError)
    return result


def content_of(params: Params) -> dict[str, Any]:
    """Returns what is compared: names, shapes and bits."""
    return {
        f"{layer}/{name}": (array.shape, np.ascontiguousarray(array, np.float32).tobytes())
        for layer, arrays in params.items()
        for name, array in arrays.items()
    }


def check(sample: Sample, folder: Path, seeds: Iterator[list[int]]) -> int:
    """Damages a file once for each seed; returns how many were read."""
    path = folder / "model"
    sample.write(path)
    original = content_of(sample.compared(read(path, **sample.options)))
    targets = [x for x in sorted(folder.glob(sample.damaged)) if x.is_file()]
    count = 0
    for seed in seeds:
        rng = np.random.default_rng(seed)
        target = targets[rng.integers(len(targets))]
        content = target.read_bytes()
        changed, change = damaged_files.damaged(content, rng)
        target.write_bytes(changed)
        found = read(path, **sample.options)
        if isinstance(found, ModelFile):
            expected = content_of(sample.read(path)) if sample.read else original
            assert content_of(sample.compared(found)) == expected, (seed, change)
            count += 1
        target.write_bytes(content)
    return count


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def seeds(name: str, cases: range) -> Iterator[list[int]]:
    return ([zlib.crc32(name.encode()), case] for case in cases)


@CASES
def test_damage(name: str, tmp_path: Path) -> None:
    check(SAMPLES[name], tmp_path, seeds(name, range(FEW)))


@pytest.mark.slow
@CASES
def test_much_damage(name: str, tmp_path: Path) -> None:
    before, cases = peak(), range(FEW, MANY)
    count = check(SAMPLES[name], tmp_path, seeds(name, cases))
    assert 0 < count < len(cases) or SAMPLES[name].read is None
    assert peak() - before < MEMORY


WITHOUT_CHECKSUMS = [
    name
    for name, sample in SAMPLES.items()
    if sample.read
    and name not in ("npy protocol 0", "orbax")  # where numbers are text, or compressed
]


@pytest.mark.parametrize("name", WITHOUT_CHECKSUMS)
def test_numbers_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    """Without checksums, a number with another sign is that number."""
    sample, path = SAMPLES[name], tmp_path / "model"
    sample.write(path)
    targets = {x: x.read_bytes() for x in tmp_path.iterdir()}
    original = damaged_files.MEAN if name == "binaryproto" else damaged_files.RGB["conv3.bias"]
    dtype = "<f8" if name == "caffe doubles" else "<f4"
    numbers, opposite = (x.astype(dtype).tobytes() for x in (original, -original))
    assert sum(content.count(numbers) for content in targets.values()) == 1
    for target, content in targets.items():
        target.write_bytes(content.replace(numbers, opposite))
    found = read(path, **sample.options)
    assert isinstance(found, ModelFile)
    if name == "binaryproto":
        np.testing.assert_array_equal(found.mean, -original[::-1].transpose(1, 2, 0))
    else:
        np.testing.assert_array_equal(found.params["conv3"]["bias"], -original)


@pytest.mark.parametrize("name", ["torch stream", "npz", "npy", "caffe V1", "onnx", "flax"])
def test_the_program_refuses_half_a_file(
    name: str, tmp_path: Path, run_main: Callable[..., tuple[int, str, str]]
) -> None:
    path = tmp_path / "model"
    SAMPLES[name].write(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, _, message = run_main("import_weights", str(path), f"--workdir={tmp_path / 'run'}")
    assert code == 2
    assert message.startswith(f"error: {path} ")
    assert message.count("\n") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


# ---- Hostile pickles


@pytest.mark.parametrize(
    "name", ["REDUCE", "INST", "OBJ", "eval", "STACK_GLOBAL", "STACK_GLOBAL by memo"]
)
def test_python_itself_runs_them(name: str, tmp_path: Path) -> None:
    """What is refused below is not just malformed."""
    value = hostile_pickles.commands(str(tmp_path / "canary"))[name]
    pickle.loads(torch_archive.pickle(value))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("position", POSITIONS)
def test_hostile_pickles_are_refused(position: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model"
    for name, value in hostile_pickles.commands(str(canary)).items():
        path.write_bytes(POSITIONS[position](value))
        assert isinstance(read(path, partial=True), InputError), name
        assert not canary.exists(), name


@pytest.mark.slow
@pytest.mark.parametrize("position", POSITIONS)
def test_bombs_in_pickles_are_refused(position: str, tmp_path: Path) -> None:
    path, before = tmp_path / "model", peak()
    for name, value in hostile_pickles.bombs().items():
        path.write_bytes(POSITIONS[position](value))
        assert isinstance(read(path, partial=True), InputError), name
    assert peak() - before < MEMORY


# ---- Files that say they hold very much


@pytest.mark.slow
def test_declared_sizes_take_no_memory(tmp_path: Path) -> None:
    """A process of its own, as some libraries would end it."""
    paths = declared_sizes.write_all(tmp_path)
    program = Path(declared_sizes.__file__).with_name("little_memory.py")
    environment = {**os.environ, "MALLOC_ARENA_MAX": "2", "PYTHONPATH": str(program.parents[2])}
    command = [sys.executable, str(program), *map(str, paths)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.partition("\t")[0] for line in lines] == [str(path) for path in paths]
    for path, line in zip(paths, lines, strict=True):
        assert line.startswith(f"{path}\t{path} "), line


METADATA = [
    ("model.num_classes", None),
    ("model.num_classes", 2**62),
    ("model.num_classes", [5]),
    ("model.num_classes", {}),
    ("model.name", ["torchvision"]),
    ("model.name", "x" * 10**6),
    ("model.layers", 3),
    ("model.layers.conv1", {"features": 4}),
    ("model.layers.conv1.features", "4"),
    ("model.layers.conv1.features.x", 4),
    ("model.layers.conv1.features", 2**62),
    ("model.layers.conv2.stride", 0),
    ("model.layers.fc7.name", "fc6"),
    ("model.input_size", 10**9),
    ("model.input_size", -1),
    ("model.input_size", float("nan")),
    ("model.remove_layer", "conv1"),
    ("model.initializer", {"kind": []}),
    ("augment.mean", {}),
    ("augment.channel_mean", [[], {}]),
    ("data.image_size", "large"),
]


@pytest.mark.parametrize("format", ["npz", "safetensors", "onnx"])
def test_odd_metadata(format: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    SAMPLES[f"own {format}"].write(path)
    found = read(path)
    assert isinstance(found, ModelFile)
    for key, value in METADATA:
        metadata = json.dumps({"config": {**found.config, key: value}, "classes": None})
        _replace_metadata(format, path, metadata)
        for partial in (False, True):
            result = read(path, partial=partial)
            if isinstance(result, ModelFile):
                assert content_of(result.params) == content_of(found.params), key


def _replace_metadata(format: str, path: Path, metadata: str) -> None:
    if format == "npz":
        arrays = {**np.load(path), "metadata": np.array(metadata)}
        with path.open("wb") as file:
            np.savez(file, **arrays)
    elif format == "safetensors":
        arrays = safetensors.numpy.load_file(path)
        safetensors.numpy.save_file(arrays, path, {"alexnet_jax": metadata})
    else:
        model = onnx.load(path)
        onnx.helper.set_model_props(model, {"alexnet_jax": metadata})
        path.write_bytes(model.SerializeToString())
