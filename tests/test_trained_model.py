"""A trained model loaded from its workdir, against the state that the run saved."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict

import alexnet_jax
from alexnet_jax import trained_model
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.experiment import Experiment, data_options
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.preprocessing.crops import center_view, whole_view
from alexnet_jax.training.checkpoint import Checkpoints

EARLIER, LAST = 3, 4  # steps of the run's checkpoints


@pytest.fixture(scope="module")
def config(finished_run: Path) -> ConfigDict:
    return ConfigDict(json.loads((finished_run / "config.json").read_text()))


@pytest.fixture(scope="module")
def held_out(config: ConfigDict) -> Source:
    return open_source(data_options(config), config.data.eval_split)


@pytest.fixture(scope="module")
def loaded(finished_run: Path) -> trained_model.TrainedModel:
    return trained_model.load(finished_run)


def test_probabilities_are_those_of_the_saved_state(
    finished_run: Path, config: ConfigDict, held_out: Source, loaded: Any
) -> None:
    """Restored to another mesh than the run's, and applied by hand."""
    config.parallel.update(strategy="tower", devices=2)
    experiment = Experiment.from_config(config, 10, 4000)
    checkpoints = Checkpoints(finished_run / "checkpoints", read_only=True)
    state = checkpoints.restore(LAST, experiment.abstract_state())
    checkpoints.close()
    params = jax.device_get(state.params)
    images = held_out.load(np.arange(20)).images
    view = center_view(images, jax.device_get(state.statistics), experiment.augmentation)
    logits = np.asarray(jax.jit(experiment.model.apply)({"params": params}, view), np.float64)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = odds / odds.sum(axis=1, keepdims=True)
    found = loaded.probabilities(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert np.ptp(found, axis=0).max() > 1e-3  # images differ in them


def test_plain_orbax_restores_the_arrays(finished_run: Path, loaded: Any) -> None:
    """The call that training/checkpoint.py documents, and the other obvious ones."""
    folder = finished_run.absolute() / "checkpoints"
    trees = [
        ocp.StandardCheckpointer().restore(folder / str(LAST) / "state"),
        ocp.PyTreeCheckpointer().restore(folder / str(LAST) / "state"),
        ocp.CheckpointManager(folder).restore(LAST)["state"],
    ]
    for tree in trees:
        kernel = tree["params"]["conv1"]["kernel"]
        np.testing.assert_array_equal(kernel, loaded.params["conv1"]["kernel"])
        assert tree["step"] == LAST


# ---- Heat maps


def test_a_heat_map_has_the_models_probabilities_at_each_position(
    loaded: Any, held_out: Source
) -> None:
    """The run subtracts the mean color. Of a wide image, off-center positions differ."""
    images = held_out.load(np.arange(4)).images
    heat = loaded.heat_map(images[:, 2:26, 2:26])  # the center crop
    assert heat.shape == (4, 1, 1, 10)
    np.testing.assert_allclose(heat[:, 0, 0], loaded.probabilities(images), rtol=1e-4, atol=1e-6)
    wide = loaded.heat_map(np.tile(images, (1, 1, 2, 1)))
    assert wide.shape[:2] == (4, 1)
    assert wide.shape[2] > 3
    np.testing.assert_allclose(wide.sum(axis=-1), 1, rtol=1e-5)
    assert np.ptp(wide[:, 0], axis=1).max() > 1e-3


def test_a_heat_map_is_preprocessed_as_a_dense_evaluation(loaded: Any, held_out: Source) -> None:
    """A mean image is subtracted pixel by pixel, and pixels are scaled by channel."""
    mean = np.random.default_rng(0).uniform(0, 255, (28, 28, 1)).astype(np.float32)
    changed = dataclasses.replace(loaded.augmentation, scale=(0.5,))
    other = dataclasses.replace(loaded, augmentation=changed, statistics={"mean": mean})
    images = held_out.load(np.arange(4)).images
    view = jax.jit(whole_view, static_argnums=(2, 3))(images, {"mean": mean}, changed, 28)
    np.testing.assert_allclose(view, (images - mean) * np.float32(0.5), rtol=1e-5, atol=1e-5)
    model = other.model.clone(spec=fully_convolutional(other.model.spec))
    expected = jax.jit(functools.partial(model.apply, heat_map=True))(other.variables, view)
    odds = np.exp(np.asarray(expected, np.float64))
    np.testing.assert_allclose(
        other.heat_map(images), odds / odds.sum(axis=-1, keepdims=True), rtol=1e-4, atol=1e-6
    )


# ---- Loading


def test_the_logged_accuracy_comes_out_again(
    finished_run: Path, loaded: Any, held_out: Source
) -> None:
    text = (finished_run / "metrics.jsonl").read_text().splitlines()[-1]
    line = json.loads(text)
    assert (line["split"], line["step"]) == ("val", LAST)
    examples = held_out.load(np.arange(len(held_out)))
    probabilities = loaded.probabilities(examples.images)
    own = probabilities[np.arange(len(held_out)), examples.labels].astype(np.float64)
    first_five = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    found = {
        "loss": -np.log(own).mean(),
        "top1": (first_five[:, 0] == examples.labels).mean(),
        "top5": (first_five == examples.labels[:, None]).any(axis=1).mean(),
        "count": len(held_out),
    }
    assert found == pytest.approx({name: line[name] for name in found}, rel=1e-4)


@pytest.mark.parametrize(
    ("which", "step"), [("best", LAST), ("latest", LAST), ("3", EARLIER), (3, EARLIER)]
)
def test_a_checkpoint_is_chosen(which: str | int, step: int, finished_run: Path) -> None:
    found = alexnet_jax.load(str(finished_run), which)
    assert found.step == step
    assert found.class_names == found.class_labels == tuple("0123456789")


def test_the_representation_is_one_line(loaded: Any) -> None:
    text = repr(loaded)
    count = sum(array.size for array in jax.tree.leaves(loaded.params))
    assert f"{count:,} parameters" in text
    assert "\n" not in text
    assert len(text) < 100


@pytest.mark.parametrize("which", ["2", "last", 2])
def test_a_missing_step_is_refused_with_those_there_are(
    which: str | int, finished_run: Path
) -> None:
    with pytest.raises(InputError, match=f"{EARLIER}, {LAST}"):
        trained_model.load(finished_run, which)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=str(tmp_path)):
        trained_model.load(tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}/nowhere"):
        trained_model.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_run_is_refused(finished_run: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    metadata = workdir / "checkpoints" / str(LAST) / "metadata" / "metadata"
    metadata.write_text(metadata.read_text()[:-10])
    with pytest.raises(InputError, match=f"checkpoints/{LAST}"):
        trained_model.load(workdir, LAST)


# ---- Images


@pytest.mark.parametrize("method", ["logits", "heat_map"])
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((2, 28, 28), np.uint8),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((2, 20, 28, 1), np.uint8),
        np.zeros((2, 28, 28, 1), np.float32),
        jax.numpy.zeros((2, 28, 28, 1)),
        [[[[0]]]],
    ],
    ids=lambda images: f"{getattr(images, 'dtype', 'list')}{np.shape(images)}",
)
def test_images_of_another_kind_are_refused(method: str, images: Any, loaded: Any) -> None:
    shape = ", ".join(map(str, np.shape(images)))
    with pytest.raises(InputError, match=rf"\[{shape}\]"):
        getattr(loaded, method)(images)


def test_images_of_another_size_are_for_heat_maps_only(loaded: Any) -> None:
    larger = np.zeros((1, 29, 31, 1), np.uint8)
    assert loaded.heat_map(larger).shape[0] == 1
    with pytest.raises(InputError, match="1, 29, 31, 1"):
        loaded.probabilities(larger)
