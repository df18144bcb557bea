"""A weight file becomes a workdir, which jobs use as that of a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

import alexnet_jax
from alexnet_jax import weights
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.evaluation import measures
from alexnet_jax.plots import style
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.weights import ModelFile

RunMain = Callable[..., tuple[int, str, str]]
DIGITS = ("--config.data.source=digits", "--config.data.eval_split=val[:137]")


@pytest.fixture(scope="module")
def file(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of a run, which subtracts the mean color, as a file of another program."""
    trained = alexnet_jax.load(finished_run)
    color = tuple(np.asarray(trained.statistics["mean"]).ravel().tolist())
    config = {"model.name": "digits", "model.num_classes": 10, "data.image_size": 28}
    config |= {"data.channels": 1, "augment.mean": "given", "augment.channel_mean": color}
    table = ClassTable(trained.class_names, trained.class_labels)
    path = tmp_path_factory.mktemp("weights") / "digits.npz"
    weights.write(path, "npz", ModelFile(config, jax.device_get(trained.params), classes=table))
    return path


@pytest.fixture(scope="module")
def imported(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of that file, imported. Copy it before changing it."""
    from alexnet_jax.main import main

    workdir = tmp_path_factory.mktemp("imported") / "run"
    assert main(["import_weights", str(file), str(workdir), *DIGITS]) == 0
    return workdir


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "worst_mistakes", lambda *_: [])
    monkeypatch.setattr(style, "save", lambda *_: None)


def test_the_workdir_is_that_of_a_finished_run(file: Path, imported: Path) -> None:
    status = json.loads((imported / "status.json").read_text())
    assert (status["status"], status["step"], status["exit_code"]) == ("done", 0, 0)
    config = json.loads((imported / "config.json").read_text())
    assert (config["name"], config["model"]["name"]) == ("digits", "digits")
    assert (config["data"]["source"], config["weights"]["file"]) == ("digits", str(file))
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), np.uint8)
    found, expected = alexnet_jax.load(imported), alexnet_jax.load(file)
    np.testing.assert_array_equal(found.logits(images), expected.logits(images))
    assert json.loads(json.dumps(found.config)) == config
    metadata = Checkpoints(imported / "checkpoints", read_only=True).metadata(0)
    assert any("sha256" in note for note in metadata["imported"])
    assert {name.partition("/")[0] for name in metadata["arrays"]} == {
        *("step", "params", "statistics")
    }


def test_what_was_worked_out_is_printed(
    run_main: RunMain, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, output, _ = run_main("import_weights", str(file), str(tmp_path / "new"))
    assert code == 0
    for name in ("conv1", "fc8", str(tmp_path / "new")):
        assert name in output
    assert "sha256" in caplog.text


def test_a_file_without_some_layers_is_imported_on_request(
    run_main: RunMain, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with np.load(file) as whole:
        arrays = {name: whole[name] for name in whole.files if not name.startswith("fc7/")}
    np.savez(tmp_path / "part.npz", **arrays)
    args = ("import_weights", str(tmp_path / "part.npz"), str(tmp_path / "new"))
    code, _, errors = run_main(*args)
    assert (code, "fc7" in errors) == (2, True)
    assert not (tmp_path / "new").exists()
    assert run_main(*args, "--config.weights.partial")[0] == 0
    assert "at random: fc7" in caplog.text


def test_preprocessing_can_be_set_in_importing(
    run_main: RunMain, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Many files have none, and what is usual for their format is an assumption."""
    args = ("import_weights", str(file), str(tmp_path / "new"))
    keys = ("--config.augment.channel_mean=(7.5,)", "--config.augment.scale=0.5")
    assert run_main(*args, *keys)[0] == 0
    assert "augment.channel_mean, augment.scale" in caplog.text
    found = alexnet_jax.load(tmp_path / "new")
    np.testing.assert_array_equal(np.ravel(found.statistics["mean"]), [7.5])
    assert found.augmentation.scale == 0.5


def test_it_is_evaluated_as_the_run_that_it_came_from(
    run_main: RunMain, file: Path, imported: Path, finished_run: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, no_figures: None,
) -> None:  # fmt: skip
    """By its workdir, its checkpoint, or the weight file itself."""
    last = json.loads((finished_run / "status.json").read_text())["last"]["val"]
    workdir = Path(shutil.copytree(imported, tmp_path / "run"))
    monkeypatch.chdir(tmp_path)
    for path, folder in (
        (workdir, workdir),
        (workdir / "checkpoints" / "0", workdir),
        (file, tmp_path),
    ):
        code, _, errors = run_main("evaluate", str(path), *DIGITS)
        assert code == 0, errors
        result = json.loads((folder / "evaluation.json").read_text())
        (folder / "evaluation.json").unlink()
        assert result["loss"] == pytest.approx(last["loss"], rel=1e-4)
        assert (result["top1"], result["count"]) == (last["top1"], 137)


def test_a_run_starts_from_it_but_not_in_it(
    run_main: RunMain, imported: Path, short_quickstart: tuple[str, ...], tmp_path: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in imported.rglob("*")}
    code, _, errors = run_main("train", str(imported))
    assert code == 2
    assert before == {path: path.stat().st_mtime_ns for path in imported.rglob("*")}
    assert f"--config.train.init_from={imported}" in errors
    workdir = tmp_path / "new"
    args = (
        *(short_quickstart[0], *short_quickstart[2:9]),  # its augment.mean is that of the file
        f"--config.train.init_from={imported}",
        "--config.optimizer.rates.frozen.pattern=Conv/",
        "--config.optimizer.rates.frozen.rate=0",
    )
    code, _, errors = run_main(*args, f"--workdir={workdir}")
    assert code == 0, errors
    found, expected = (alexnet_jax.load(path).params for path in (workdir, imported))
    for layer, parameters in expected.items():
        same = np.array_equal(parameters["kernel"], found[layer]["kernel"])
        assert same == layer.startswith("conv")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["--config.job=import_weights", "--workdir={tmp}/new"], "a weight file"),
        (["import_weights", "{tmp}/absent.pth", "{tmp}/new"], "absent.pth"),
        (["import_weights", "{tmp}", "{tmp}/new"], "{tmp}"),
        (["import_weights", "{run}", "{tmp}/new"], "{run}"),
        (["import_weights", "{file}", "{run}"], "{run}"),
        (["import_weights", "{file}", "{tmp}/new", "--config.model.input_size=20"], "input_size"),
        (["import_weights", "{file}", "{tmp}/new", f"--config.weights.sha256={'0' * 64}"], "0000"),
        (["import_weights", "{file}", "{tmp}/new", "--config.weights.sha256=0"], "weights.sha256"),
        (["import_weights", "{file}", "{tmp}/new", "--config.train.batch_size=7",
          "--config.parallel.devices=2"], "train.batch_size"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_leaves_nothing(
    run_main: RunMain, file: Path, imported: Path, tmp_path: Path, args: list[str], part: str
) -> None:
    args = [arg.format(tmp=tmp_path, file=file, run=imported) for arg in args]
    code, output, errors = run_main(*args)
    assert (code, output) == (2, "")
    assert part.format(tmp=tmp_path, run=imported) in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())
