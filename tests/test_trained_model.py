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
from options import data_options
from PIL import Image

import alexnet_jax
from alexnet_jax import experiment, trained_model, weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.models.overrides import fully_convolutional
from alexnet_jax.preprocessing.crops import center_view, whole_view
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.weights import ModelFile

EARLIER, LAST = 3, 4  # steps of the run's checkpoints


@pytest.fixture(scope="module")
def config(finished_run: Path) -> ConfigDict:
    return ConfigDict(json.loads((finished_run / "config.json").read_text()))


@pytest.fixture(scope="module")
def held_out(config: ConfigDict) -> Source:
    return open_source(experiment.data_options(config), config.data.eval_split)


@pytest.fixture(scope="module")
def loaded(finished_run: Path) -> trained_model.TrainedModel:
    return trained_model.load(finished_run)


def test_probabilities_are_those_of_the_saved_state(
    finished_run: Path, config: ConfigDict, held_out: Source, loaded: Any
) -> None:
    """Restored to another mesh than the run's, and applied by hand."""
    config.parallel.update(strategy="tower", devices=2)
    parts = experiment.Experiment.from_config(config, 10, 4000)
    checkpoints = Checkpoints(finished_run / "checkpoints", read_only=True)
    state = checkpoints.restore(LAST, parts.abstract_state())
    checkpoints.close()
    params = jax.device_get(state.params)
    images = held_out.load(np.arange(20)).images
    view = center_view(images, jax.device_get(state.statistics), parts.augmentation)
    logits = np.asarray(jax.jit(parts.model.apply)({"params": params}, view), np.float64)
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


def test_a_checkpoint_of_a_run_is_loaded_by_its_folder(finished_run: Path) -> None:
    found = alexnet_jax.load(finished_run / "checkpoints" / str(EARLIER))
    assert found.step == EARLIER
    assert found.config["name"] == "quickstart"


# ---- Weight files


@pytest.fixture(scope="module")
def model_file(loaded: Any) -> ModelFile:
    """The run's model as a file of another program would describe it."""
    color = loaded.statistics["mean"].ravel()
    preprocessing = {"augment.mean": "given", "augment.channel_mean": tuple(map(float, color))}
    config = {"model.name": "digits", "model.num_classes": 10, "data.image_size": 28}
    config |= {"data.channels": 1, **preprocessing, "augment.color_noise": "code"}
    table = ClassTable(loaded.class_names, tuple(f"digit {name}" for name in loaded.class_names))
    return ModelFile(config, jax.device_get(loaded.params), classes=table)


def test_a_weight_file_is_the_model_that_it_describes(
    model_file: ModelFile, loaded: Any, held_out: Source, tmp_path: Path
) -> None:
    weights.write(tmp_path / "file.npz", "npz", model_file)
    found = alexnet_jax.load(tmp_path / "file.npz")
    images = held_out.load(np.arange(5)).images
    np.testing.assert_allclose(found.logits(images), loaded.logits(images), rtol=1e-6, atol=1e-6)
    assert (found.step, found.image_size, found.resize) == (0, 28, "crop")
    assert found.class_names == loaded.class_names
    assert found.class_labels[3] == "digit 3"
    assert found.config["augment"]["color_noise"] == "none"  # training is none of its business
    with pytest.raises(InputError, match="sha256"):
        alexnet_jax.load(tmp_path / "file.npz", sha256="0" * 64)


@pytest.mark.parametrize("mean", ["image", "image_at_crop"])
def test_a_mean_image_is_subtracted(
    mean: str, model_file: ModelFile, loaded: Any, held_out: Source
) -> None:
    array = np.random.default_rng(0).uniform(0, 255, (28, 28, 1)).astype(np.float32)
    config = model_file.config | {"augment.mean": mean}
    del config["augment.channel_mean"]
    given = dataclasses.replace(model_file, config=config, mean=array)
    found = trained_model.of_model_file(given)
    images = held_out.load(np.arange(5)).images
    expected = dataclasses.replace(loaded, statistics={"mean": array}).logits(images)
    np.testing.assert_allclose(found.logits(images), expected, rtol=1e-6, atol=1e-6)
    for wrong in (None, array[1:]):
        with pytest.raises(InputError, match=r"augment\.mean"):
            trained_model.of_model_file(dataclasses.replace(given, mean=wrong))


def test_layers_that_a_file_lacks_are_drawn(model_file: ModelFile) -> None:
    params = {name: row for name, row in model_file.params.items() if name.startswith("conv")}
    found = trained_model.of_model_file(dataclasses.replace(model_file, params=params)).params
    assert found.keys() == model_file.params.keys()
    for name, row in found.items():
        same = np.array_equal(row["kernel"], model_file.params[name]["kernel"])
        assert same == (name in params)
        assert np.std(row["kernel"]) > 0


def test_a_file_with_a_config_that_is_none_is_refused(model_file: ModelFile) -> None:
    for key, value, part in (
        ("data.resize", "squeeze", "resize"),
        ("model.layers.conv1.stride", 20, "pool1"),
    ):
        config = model_file.config | {key: value}
        with pytest.raises(InputError, match=part):
            trained_model.of_model_file(dataclasses.replace(model_file, config=config))


# ---- Images


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three photographs of other sizes than the run's."""
    root = tmp_path / "images"
    for split in ("train", "val"):
        (root / split / "one").mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [root / "val" / "one" / f"{index}.png" for index in range(3)]
    for path, size in zip(paths, [(40, 30), (28, 28), (20, 33)], strict=True):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    shutil.copy(paths[0], root / "train" / "one")
    return paths


@pytest.mark.parametrize("resize", ["crop", "torchvision", "warp"])
def test_images_of_any_form_become_what_the_run_would_read(
    resize: str, loaded: Any, files: list[Path]
) -> None:
    trained = dataclasses.replace(loaded, resize=resize)
    options = data_options("folder", files[0].parents[2], image_size=28, channels=1, resize=resize)
    expected = open_source(options, "val").load(np.arange(3)).images
    for images in (files, str(files[0].parent), [Image.open(path) for path in files]):
        np.testing.assert_array_equal(trained.transform(images), expected)
    np.testing.assert_array_equal(trained.transform(expected), expected)
    np.testing.assert_array_equal(trained.transform(np.array(Image.open(files[2]))), expected[2:])
    assert trained.transform([]).shape == (0, 28, 28, 1)


def test_every_batch_has_one_size(
    loaded: Any, held_out: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the rows that fill the last one up are not returned."""
    monkeypatch.setattr(trained_model, "LARGEST_BATCH", 4)
    images = held_out.load(np.arange(7)).images
    for count, size in ((7, 4), (4, 4), (3, 4), (2, 2), (1, 1), (0, 1)):
        sizes = set()

        def first_pixels(arrays: Any, sizes: set[int] = sizes) -> Any:
            sizes.add(len(arrays[2]))
            return arrays[2][:, 14, :, 0]

        found = loaded._apply(list(images[:count]), first_pixels)
        np.testing.assert_array_equal(found, images[:count, 14, :, 0])
        assert sizes == {size}


def test_predictions_are_the_most_probable_classes(loaded: Any, held_out: Source) -> None:
    images = held_out.load(np.arange(6)).images
    labeled = dataclasses.replace(loaded, class_labels=tuple("abcdefghij"))
    predictions, probabilities = labeled.predict(images, top=3), labeled.probabilities(images)
    assert len(predictions) == 6
    for prediction, row in zip(predictions, probabilities, strict=True):
        assert len(prediction) == 3
        found = [guess.probability for guess in prediction]
        np.testing.assert_allclose(found, np.sort(row)[:-4:-1])
        for name, label, probability in prediction:
            assert label == "abcdefghij"[int(name)]
            assert probability == pytest.approx(row[int(name)])
    assert repr(predictions[0]).startswith(f"Prediction({predictions[0][0].label} ")
    assert repr(predictions[0]).count("%") == 3
    assert len(loaded.predict(images[0], top=99)[0]) == 10


def test_ten_crops_are_averaged(loaded: Any, held_out: Source) -> None:
    images = held_out.load(np.arange(3)).images
    mean, scale = loaded.statistics["mean"], loaded.augmentation.scale
    apply = jax.jit(loaded.model.apply)
    total = np.zeros((3, 10))
    for top, left in ((0, 0), (0, 4), (2, 2), (4, 0), (4, 4)):
        crop = images[:, top : top + 24, left : left + 24]
        for view in (crop, crop[:, :, ::-1]):
            logits = np.asarray(apply(loaded.variables, (view - mean) * scale), np.float64)
            total += np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = loaded.probabilities(images, "ten_crops")
    np.testing.assert_allclose(found, total / 10, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match=r"'ten'.*ten_crops"):
        loaded.probabilities(images, "ten")


def test_features_are_what_the_last_layer_sees(loaded: Any, held_out: Source) -> None:
    """fc8 takes those of fc7 times the share that dropout keeps."""
    images = held_out.load(np.arange(3)).images
    features, last = loaded.features(images), loaded.params["fc8"]
    assert features.min() == 0  # after the ReLU
    logits = 0.5 * features @ np.asarray(last["kernel"]) + last["bias"]
    np.testing.assert_allclose(logits, loaded.logits(images), rtol=1e-4, atol=1e-5)
    assert loaded.features(images, layer="pool5").shape == (3, 2, 2, 64)
    with pytest.raises(InputError, match="'fc9'"):
        loaded.features(images, layer="fc9")


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 28, 28, 3), np.uint8),
        np.zeros((28, 28, 1), np.uint8),
        np.zeros((2, 20, 28, 1), np.uint8),
        jax.numpy.zeros((2, 28, 28, 1)),
        [[[[0]]]],
    ],
    ids=lambda images: f"{getattr(images, 'dtype', 'list')}{np.shape(images)}",
)
def test_heat_maps_of_other_arrays_are_refused(images: Any, loaded: Any) -> None:
    shape = ", ".join(map(str, np.shape(images)))
    with pytest.raises(InputError, match=rf"\[{shape}\]"):
        loaded.heat_map(images)
    assert loaded.heat_map(np.zeros((1, 29, 31, 1), np.uint8)).shape[0] == 1
