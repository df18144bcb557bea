"""What a run takes from another model: which parameters, and what does not fit."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from alexnet_jax import weights
from alexnet_jax.errors import InputError
from alexnet_jax.models import summary
from alexnet_jax.models.layers import BatchNorm, ModelSpec
from alexnet_jax.trained_model import load
from alexnet_jax.training.state import TrainState
from alexnet_jax.training.warm_start import WarmStart, read
from alexnet_jax.weights import ModelFile, ReadOptions

Apply = Callable[..., TrainState]


def named(tree: Any) -> dict[str, np.ndarray]:
    return {"/".join(path): np.asarray(array) for path, array in flatten_dict(tree).items()}


@pytest.fixture
def source(tiny_state: Any) -> ModelFile:
    """Returns a model of the same shapes whose every number is another."""
    params = jax.tree.map(lambda array: np.asarray(array) + 1, tiny_state().params)
    return ModelFile(config={}, params=params)


@pytest.fixture
def changed(tiny_state: Any, tiny_spec: ModelSpec) -> Callable[..., set[str]]:
    """Returns (source, pattern, new_head) -> names of the parameters that are taken."""

    def apply(source: ModelFile, pattern: str = ".", *, new_head: bool = False) -> set[str]:
        before = tiny_state()
        warm = WarmStart(source, Path("X"), pattern, new_head)
        after = warm.apply(before, tiny_spec)
        old, new, there = map(named, (before.params, after.params, source.params))
        taken = {name for name in old if not np.array_equal(old[name], new[name])}
        for name in taken:
            np.testing.assert_array_equal(new[name], there[name])
            assert after.params[name.split("/")[0]][name.split("/")[1]].sharding is not None
        rest = dataclasses.replace(after, params=before.params)
        assert jax.tree.structure(rest) == jax.tree.structure(before)
        return taken

    return apply


ALL = {f"{x}/{y}" for x in ("conv1", "conv2", "conv3", "fc4", "fc5") for y in ("kernel", "bias")}


@pytest.mark.parametrize(
    ("pattern", "new_head", "expected"),
    [
        (".", False, ALL),
        (".", True, {name for name in ALL if not name.startswith("fc5")}),
        ("Conv/", False, {name for name in ALL if name.startswith("conv")}),
        ("fc|conv1/kernel", True, {"conv1/kernel", "fc4/kernel", "fc4/bias"}),
    ],
)
def test_the_pattern_and_the_new_head_choose(
    pattern: str, new_head: bool, expected: set[str], changed: Any, source: ModelFile
) -> None:
    assert changed(source, pattern, new_head=new_head) == expected


def test_layers_that_a_file_lacks_stay_fresh(changed: Any, source: ModelFile) -> None:
    params = {layer: arrays for layer, arrays in source.params.items() if layer[:2] != "fc"}
    partial = dataclasses.replace(source, params=params, fresh=("fc4", "fc5"))
    assert changed(partial) == {name for name in ALL if name.startswith("conv")}


def test_statistics_of_norms_are_taken_with_their_layer(
    tiny_state: Any, tiny_spec: ModelSpec
) -> None:
    norms = {"kept": {"mean": np.ones(8)}, "taken": {"mean": np.ones(8)}}
    layers = (*tiny_spec.layers, BatchNorm("kept"), BatchNorm("taken"))
    spec = dataclasses.replace(tiny_spec, layers=layers)
    own = {layer: {"mean": jax.numpy.zeros(8)} for layer in norms}
    state = dataclasses.replace(tiny_state(), batch_stats=own)
    source = ModelFile(config={}, params=jax.device_get(state.params), batch_stats=norms)
    found = WarmStart(source, Path("X"), "Conv/|taken", True).apply(state, spec).batch_stats
    assert {layer: float(arrays["mean"][0]) for layer, arrays in found.items()} == {
        "kept": 0,
        "taken": 1,
    }


def test_other_classes_need_a_new_head(changed: Any, source: ModelFile) -> None:
    params = {**source.params, "fc5": {"kernel": np.ones((16, 3)), "bias": np.ones(3)}}
    other = dataclasses.replace(source, params=params)
    with pytest.raises(InputError, match=r"3 outputs.* 7: .*train\.init_new_head"):
        changed(other)
    assert changed(other, new_head=True) == {n for n in ALL if not n.startswith("fc5")}
    assert changed(other, "Conv/") == {n for n in ALL if n.startswith("conv")}


def test_what_does_not_fit_is_listed(changed: Any, source: ModelFile) -> None:
    params = {**source.params, "conv1": {"kernel": np.ones((3, 3, 1, 8))}}
    with pytest.raises(InputError) as caught:
        changed(dataclasses.replace(source, params=params))
    message = str(caught.value)
    assert "params/conv1/kernel: [3, 3, 1, 8] there, [5, 5, 1, 8] here" in message
    assert "params/conv1/bias: absent there, [8] here" in message
    assert "conv2" not in message
    with pytest.raises(InputError, match=r"train\.init_layers"):
        changed(source, "fc9")


def test_a_workdir_and_its_checkpoint_are_read(finished_run: Path) -> None:
    options = ReadOptions()
    found = read(finished_run, "4", options)
    expected = load(finished_run, 4)
    assert named(found.params).keys() == named(expected.params).keys()
    for name, array in named(expected.params).items():
        np.testing.assert_array_equal(named(found.params)[name], array)
    assert found.classes is not None
    assert found.classes.ids == expected.class_names
    assert found.config["augment.mean"] == "channel"
    np.testing.assert_array_equal(found.mean, expected.statistics["mean"])
    again = read(finished_run / "checkpoints" / "4", "best", options)
    assert all(
        np.array_equal(some, other)
        for some, other in zip(
            named(found.params).values(), named(again.params).values(), strict=True
        )
    )
    without = read(finished_run, "4", options, arrays=False)
    assert (without.params, without.config) == ({}, found.config)


def test_a_weight_file_is_read(tmp_path: Path, finished_run: Path) -> None:
    run = read(finished_run, "4", ReadOptions())
    config = {path: run.config[path] for path in ("model.name", "data.image_size", "data.channels")}
    own = dataclasses.replace(run, config={**config, "model.num_classes": 10}, mean=None)
    weights.write(tmp_path / "weights.npz", "npz", own)
    found = read(tmp_path / "weights.npz", "best", ReadOptions())
    for name, array in named(run.params).items():
        np.testing.assert_array_equal(named(found.params)[name], array)
    with pytest.raises(InputError, match="sha256"):
        read(tmp_path / "weights.npz", "best", ReadOptions(sha256="0" * 64))


def test_what_is_not_there_is_an_error(tmp_path: Path, finished_run: Path) -> None:
    for path in (tmp_path / "absent", tmp_path, finished_run / "checkpoints" / "7"):
        with pytest.raises(InputError, match=path.name):
            read(path, "best", ReadOptions())
    copy = shutil.copytree(finished_run / "checkpoints" / "4", tmp_path / "4")
    assert read(copy, "best", ReadOptions()).params


def test_parameters_are_described_by_layer() -> None:
    chosen = {
        "conv1": {"kernel": True, "bias": True},
        "conv2": {"kernel": True, "bias": False},
        "fc3": {"kernel": False, "bias": False},
    }
    assert summary.describe_parameters(chosen) == "conv1, conv2/kernel"
    assert summary.describe_parameters({"fc3": chosen["fc3"]}) == "none"
