"""A trained net loaded from its workdir, against the state that the run saved."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import alexnet_jax
from alexnet_jax import trained_model
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.experiment import Experiment, data_options
from alexnet_jax.preprocessing.crops import center_view
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
    """Restored to another mesh than the run's, and put together by hand."""
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
    assert np.ptp(found, axis=0).max() > 1e-3  # pictures differ in them


def test_a_heat_map_has_the_nets_probabilities_at_each_place(loaded: Any, held_out: Source) -> None:
    """The run subtracts the mean color. Of a wide picture, places beside the center are others."""
    images = held_out.load(np.arange(4)).images
    heat = loaded.heat_map(images[:, 2:26, 2:26])  # the center crop
    assert heat.shape == (4, 1, 1, 10)
    np.testing.assert_allclose(heat[:, 0, 0], loaded.probabilities(images), rtol=1e-4, atol=1e-6)
    wide = loaded.heat_map(np.tile(images, (1, 1, 2, 1)))
    assert wide.shape[:2] == (4, 1)
    assert wide.shape[2] > 3
    np.testing.assert_allclose(wide.sum(axis=-1), 1, rtol=1e-5)
    assert np.ptp(wide[:, 0], axis=1).max() > 1e-3


def test_a_heat_map_is_scaled_by_channel(loaded: Any, held_out: Source) -> None:
    images = held_out.load(np.arange(4)).images
    changed = dataclasses.replace(loaded.augmentation, scale=(0.5,))
    other = dataclasses.replace(loaded, augmentation=changed)
    heat = other.heat_map(images[:, 2:26, 2:26])[:, 0, 0]
    np.testing.assert_allclose(heat, other.probabilities(images), rtol=1e-4, atol=1e-6)
    assert abs(heat - loaded.probabilities(images)).max() > 1e-3


def test_probabilities_sum_to_1(loaded: Any, held_out: Source) -> None:
    probabilities = loaded.probabilities(held_out.load(np.arange(20)).images)
    assert probabilities.shape == (20, 10)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


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


@pytest.mark.parametrize(("which", "step"), [("best", LAST), ("latest", LAST), ("3", EARLIER)])
def test_a_checkpoint_is_chosen(which: str, step: int, finished_run: Path) -> None:
    found = trained_model.load(str(finished_run), which)
    assert found.step == step
    assert found.class_names == found.class_labels == tuple("0123456789")


def test_load_is_the_packages_own() -> None:
    assert alexnet_jax.load is trained_model.load


@pytest.mark.parametrize("which", ["2", "last"])
def test_a_missing_step_is_told_with_those_there_are(which: str, finished_run: Path) -> None:
    told = rf"no checkpoint '{which}' in .*, only {EARLIER}, {LAST}\."
    with pytest.raises(InputError, match=told):
        trained_model.load(finished_run, which)


def test_no_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match=f"no checkpoint in {tmp_path}"):
        trained_model.load(tmp_path)
    with pytest.raises(InputError, match=f"There is no folder {tmp_path}/nowhere: name"):
        trained_model.load(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("method", ["probabilities", "logits", "heat_map"])
@pytest.mark.parametrize(
    ("images", "came"),
    [
        (np.zeros((2, 28, 28, 3), np.uint8), r"uint8 \(2, 28, 28, 3\)"),
        (np.zeros((2, 28, 28), np.uint8), r"uint8 \(2, 28, 28\)"),
        (np.zeros((28, 28, 1), np.uint8), r"uint8 \(28, 28, 1\)"),
        (np.zeros((2, 20, 28, 1), np.uint8), r"uint8 \(2, 20, 28, 1\)"),
        (np.zeros((2, 28, 28, 1), np.float32), r"float32 \(2, 28, 28, 1\)"),
        (jax.numpy.zeros((2, 28, 28, 1)), r"float32 \(2, 28, 28, 1\)"),
        ([[[[0]]]], r"list \(1, 1, 1, 1\)"),
    ],
)
def test_pictures_of_another_kind_are_told(
    method: str, images: Any, came: str, loaded: Any
) -> None:
    sides = r"height, width, 1\) of 24 pixels or more a side"
    if method != "heat_map":
        sides = r"28, 28, 1\)"
    told = rf"takes pictures as uint8 \(batch, {sides}, not as {came}\.$"
    with pytest.raises(InputError, match=told):
        getattr(loaded, method)(images)


def test_pictures_of_another_size_are_for_heat_maps_only(loaded: Any) -> None:
    larger = np.zeros((1, 29, 31, 1), np.uint8)
    assert loaded.heat_map(larger).shape[0] == 1
    with pytest.raises(InputError, match=r"\(batch, 28, 28, 1\), not as uint8 \(1, 29, 31, 1\)"):
        loaded.probabilities(larger)


def test_a_damaged_run_is_told(finished_run: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(finished_run, tmp_path / "run"))
    about = workdir / "checkpoints" / str(LAST) / "about" / "metadata"
    about.write_text(about.read_text()[:-10])
    with pytest.raises(InputError, match="damaged"):
        trained_model.load(workdir)
