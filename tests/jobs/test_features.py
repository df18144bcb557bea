"""Job features against the outputs that the model itself records for each layer."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import alexnet_jax
from alexnet_jax.data import digits
from alexnet_jax.data.source import open_source
from alexnet_jax.experiment import data_options
from alexnet_jax.preprocessing.crops import center_view

RunMain = Callable[..., tuple[int, str, str]]


@pytest.fixture
def workdir(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to compute with."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture
def features(run_main: RunMain, workdir: Path) -> RunMain:
    """Runs the job with overrides."""

    def run(*overrides: str) -> tuple[int, str, str]:
        args = ("--config.job=features", f"--workdir={workdir}")
        return run_main(*args, *(f"--config.{override}" for override in overrides))

    return run


def recorded(workdir: Path, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns what Flax records at each layer, before an activation that follows it."""
    trained = alexnet_jax.load(workdir)
    view = center_view(images, trained.statistics, trained.augmentation)
    _, found = trained.model.apply(trained.variables, view, mutable=["intermediates"])
    return {
        name.removesuffix("_output"): np.asarray(array)
        for name, (array,) in found["intermediates"].items()
    }


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def names_of(workdir: Path) -> list[str]:
    return (workdir / "features" / "names.txt").read_text().splitlines()


def test_features_of_the_evaluation_split(features: RunMain, workdir: Path) -> None:
    """Those of conv2, pool1 and fc6 are taken after the ReLU that follows; with labels."""
    code, output, errors = features("features.layers=('fc8', 'norm2', 'conv2', 'pool1', 'fc6')")
    assert (code, errors) == (0, "")
    config = ConfigDict(alexnet_jax.load(workdir).config)
    source = open_source(data_options(config), "val[:137]")
    images, labels, _ = source.load(np.arange(137))
    expected = recorded(workdir, images)
    found = {path.stem: np.load(path) for path in (workdir / "features").glob("*.npy")}
    assert set(found) == {"fc8", "norm2", "conv2", "pool1", "fc6", "labels"}
    np.testing.assert_array_equal(found["labels"], labels)
    assert names_of(workdir) == [source.describe(index) for index in range(137)]
    relu = {name: np.maximum(expected[name], 0) for name in ("conv2", "pool1", "fc6")}
    for name in found.keys() - {"labels"}:
        array = (expected | relu)[name]
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
    assert all(name in output for name in ("fc6.npy", "names.txt"))


def write_digits(folder: Path, count: int) -> np.ndarray:
    images = digits.read_digits()[0][::500][:count]
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{index}.png")
    return images


def test_the_files_replace_those_of_earlier_calls(
    features: RunMain, workdir: Path, tmp_path: Path
) -> None:
    """Whatever their layers and format; a user's own files stay."""
    write_digits(tmp_path / "images", 3)
    folder = workdir / "features"
    assert features("features.layers=('fc6', 'pool1')", "data.eval_split=val[:9]")[0] == 0
    mine = {"mine.npy", "mine.txt"}
    for name in mine:
        (folder / name).write_text("")
    images = f"features.images=('{tmp_path}/images',)"
    for options, expected in (
        ((), {"fc7.npy", "names.txt"}),
        (("features.format=npz",), {"features.npz"}),
        (("features.format=parquet",), {"features.parquet"}),
        (("features.layers=('fc8',)",), {"fc8.npy", "names.txt"}),
    ):
        assert features(images, *options)[0] == 0
        assert {path.name for path in folder.iterdir()} == expected | mine
    assert len(np.load(folder / "fc8.npy")) == len(names_of(workdir)) == 3


def test_unreadable_files_have_no_row(features: RunMain, workdir: Path, tmp_path: Path) -> None:
    images = write_digits(tmp_path / "images", 7)
    (tmp_path / "images" / "3.png").write_bytes(b"no image")
    code, _, errors = features(
        f"features.images=('{tmp_path}/images',)", "features.batch_size=4", "features.format=npz"
    )
    assert code == 2
    assert "3.png" in errors
    with np.load(workdir / "features" / "features.npz") as found:
        assert sorted(found) == ["fc7", "names"]
        good = [0, 1, 2, 4, 5, 6]
        assert found["names"].tolist() == [f"{tmp_path}/images/{index}.png" for index in good]
        expected = np.maximum(recorded(workdir, images[good])["fc7"], 0)
        np.testing.assert_allclose(found["fc7"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "tower", "hybrid", "stage"])
def test_any_strategy_gives_the_same(
    features: RunMain, workdir: Path, tmp_path: Path, strategy: str
) -> None:
    images = write_digits(tmp_path / "images", 5)
    options = (f"parallel.strategy={strategy}", "parallel.devices=2")
    code, _, errors = features(f"features.images=('{tmp_path}/images',)", *options)
    assert (code, errors) == (0, "")
    expected = np.maximum(recorded(workdir, images)["fc7"], 0)
    found = np.load(workdir / "features" / "fc7.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("features.layers=('fc77',)", "'fc77'"),
        ("features.layers=('fc7', 'fc9')", "--config.features.layers"),
        ("features.images=('absent',)", "absent"),
        ("features.format=csv", "features.format"),
        ("data.eval_split=vale", "'vale'"),
    ],
)
def test_what_has_no_features(features: RunMain, workdir: Path, override: str, named: str) -> None:
    code, _, errors = features(override)
    assert code == 2
    assert errors.startswith("error: ")
    assert named in errors
    assert not (workdir / "features").exists()


def test_a_weight_file_has_no_evaluation_split(run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "weights.npz").write_bytes(b"")
    code, _, errors = run_main("features", str(tmp_path / "weights.npz"))
    assert code == 2
    assert errors.startswith("error: features.images: ")
