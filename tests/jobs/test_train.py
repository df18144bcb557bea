"""Whole short runs of the program: how they start, what they log, when they warn, how they end."""

import dataclasses
import json
import logging
import math
import shutil
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import numpy as np
import pytest
from options import data_options
from PIL import Image

from alexnet_jax.data.source import open_source
from alexnet_jax.jobs import train
from alexnet_jax.main import main
from alexnet_jax.models import variants
from alexnet_jax.models.layers import ModelSpec
from alexnet_jax.reports import training as report
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import load

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.py"
STEPS, BATCH = 12, 20
SHORT = {
    "data.train_split": "train[:300]",
    "data.eval_split": "val[:101]",
    "train.duration": "2 steps",
    "optimizer.rates.weights.schedule": "constant",
    "optimizer.rates.biases.schedule": "constant",
}


@dataclasses.dataclass
class Run:
    """A finished run of the program."""

    workdir: Path
    code: int
    log: list[tuple[int, str]]  # (level, message)
    compiled: list[str]  # names of the programs compiled, in order

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; NaN and Infinity are no JSON."""

        def refuse(constant: str) -> None:
            raise AssertionError(constant)

        texts = (self.workdir / "metrics.jsonl").read_text().splitlines()
        return [json.loads(text, parse_constant=refuse) for text in texts]

    @property
    def status(self) -> dict[str, Any]:
        return json.loads((self.workdir / "status.json").read_text())

    @property
    def checkpoints(self) -> list[int]:
        return sorted(int(path.name) for path in (self.workdir / "checkpoints").iterdir())

    @property
    def warnings(self) -> list[str]:
        return [message for level, message in self.log if level == logging.WARNING]


class _Keeping(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelno, record.getMessage()))


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_spec: ModelSpec
) -> Iterator[Callable[..., Run]]:
    """Returns {config key: value} -> a run of the quickstart with these and the tiny model.

    Its figures are drawn only where `draw` is set.
    """
    keeping, compiled = _Keeping(), []

    def listen(event: str, duration: float, **about: Any) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(about["fun_name"])

    def start(workdir: Path | None = None, *, draw: bool = False, **changes: Any) -> Run:
        keeping.records, compiled[:] = [], []
        workdir = workdir or tmp_path_factory.mktemp("run")
        config = {
            "data.image_size": 14,
            "augment.draw_first_batch": draw,
            "parallel.strategy": "single",
            "train.batch_size": BATCH,
            "train.duration": f"{STEPS} steps",
            "optimizer.rates.weights.rate": 0.01,
            "optimizer.rates.biases.rate": 0.02,
        }
        words = [f"--config.{key}={value}" for key, value in (config | changes).items()]
        with pytest.MonkeyPatch.context() as patch:
            if not draw:
                patch.setattr(report, "draw", lambda *_: None)
            code = main([f"--config={QUICKSTART}", f"--workdir={workdir}", *words])
        return Run(workdir, code, keeping.records, list(compiled))

    logging.getLogger("alexnet_jax").addHandler(keeping)
    jax.monitoring.register_event_duration_secs_listener(listen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(variants.VARIANTS, "digits", tiny_spec)
        yield start
    jax.monitoring.unregister_event_duration_listener(listen)
    logging.getLogger("alexnet_jax").removeHandler(keeping)


# ---- A good run


@pytest.fixture(scope="module")
def good(run: Callable[..., Run]) -> Run:
    return run(
        draw=True,
        **{
            "data.train_split": "train[:300]",
            "data.eval_split": "val[:101]",
            "augment.scale": 1 / 64,
            "train.log_every": "5 steps",
            "train.evaluate_every": "6 steps",
            "checkpoint.every": "4 steps",
            "train.stuck_after": "1 step",
            "optimizer.rates.weights.schedule": "dexp",
            "optimizer.rates.weights.factor": 250.0,
            "optimizer.rates.biases.schedule": "constant",
        },
    )


def test_a_good_run_ends_well(good: Run) -> None:
    assert good.code == 0
    assert (good.status["status"], good.status["step"]) == ("done", STEPS)
    assert good.checkpoints == [8, 12]
    assert good.warnings == []
    for name in ("first_batch.png", "learning_curves.png", "kernels.png", "predictions.png"):
        assert (good.workdir / name).stat().st_size > 0


def test_each_program_is_compiled_once(good: Run) -> None:
    assert good.compiled.count("jit(train_step)") == 1
    assert good.compiled.count("jit(eval_step)") == 1


def test_lines_come_when_planned_and_count_what_they_should(good: Run) -> None:
    """The last train line covers the two steps since the one before; 101 is 101."""
    found = [(line["split"], line["step"], line["count"]) for line in good.lines]
    assert found == [
        ("train", 5, 100),
        ("val", 6, 101),
        ("train", 10, 100),
        ("train", 12, 40),
        ("val", 12, 101),
    ]
    assert [line["epoch"] for line in good.lines] == pytest.approx(
        [line["step"] * BATCH / 300 for line in good.lines]
    )


def test_lines_hold_their_keys(good: Run) -> None:
    common = {"step", "epoch", "split", "loss", "top1", "top5", "count"}
    common |= {"images_per_second", "elapsed_seconds"}
    for line in good.lines:
        extra = {"learning_rates", "norms"} if line["split"] == "train" else set()
        assert line.keys() == common | extra
        assert 0 < line["loss"] < 100
        assert 0 <= line["top1"] <= line["top5"] <= 1
        assert line["top1"] * line["count"] == pytest.approx(round(line["top1"] * line["count"]))
        assert line["images_per_second"] > 0
    times = [line["elapsed_seconds"] for line in good.lines]
    assert times == sorted(times)
    assert times[0] > 0


def test_learning_rates_are_those_of_the_lines_last_step(good: Run) -> None:
    """dexp over twelve steps: levels of three; the rate used for step 5 is the second."""
    rates = {line["step"]: line["learning_rates"] for line in good.lines if "norms" in line}
    levels = {5: 0.0015874, 10: 0.00004, 12: 0.00004}
    for step, weights in levels.items():
        assert rates[step] == pytest.approx({"weights": weights, "biases": 0.02}, rel=1e-4)


def test_norms_are_logged_for_every_parameter(good: Run) -> None:
    norms = {line["step"]: line["norms"] for line in good.lines if "norms" in line}
    layers = ("conv1", "conv2", "conv3", "fc4", "fc5")
    for step in (5, 10):
        assert norms[step].keys() == {f"{n}/{kind}" for n in layers for kind in ("kernel", "bias")}
        for name, row in norms[step].items():
            assert row.keys() == {"gradient", "parameter", "update", "ratio"}
            assert row["ratio"] == pytest.approx(row["update"] / max(row["parameter"], 1e-30))
            assert row["gradient"] > 0, name
    assert norms[12] == {}


def test_the_last_evaluation_is_that_of_the_saved_model(good: Run) -> None:
    """The logged accuracy comes out again when the model is loaded and asked image by image."""
    held_out = open_source(data_options("digits", image_size=14, channels=1), "val[:101]")
    examples = held_out.load(np.arange(101))
    probabilities = load(good.workdir, "latest").probabilities(examples.images)
    own = probabilities[np.arange(101), examples.labels].astype(np.float64)
    line = good.lines[-1]
    assert line["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)
    assert line["top1"] == pytest.approx((probabilities.argmax(axis=1) == examples.labels).mean())


# ---- A run that diverges: from step 7 on, its rates throw the weights far away


@pytest.fixture(scope="module")
def diverged(run: Callable[..., Run]) -> Run:
    return run(
        **{
            "data.train_split": "train[:300]",
            "data.eval_split": "val[:101]",
            "augment.scale": 1 / 64,
            "train.log_every": "1 step",
            "train.evaluate_every": "100 steps",
            "checkpoint.every": "6 steps",
            "optimizer.rates.weights.schedule": "step",
            "optimizer.rates.weights.boundaries": '("6 steps",)',
            "optimizer.rates.weights.step_values": "(1000.0,)",
            "optimizer.rates.biases.schedule": "constant",
        }
    )


def test_a_diverged_run_names_the_step_and_keeps_the_last_good_state(diverged: Run) -> None:
    assert diverged.code == 3
    status = diverged.status
    assert (status["status"], status["exit_code"]) == ("diverged", 3)
    assert 7 < status["step"] < 12
    for fix in ("optimizer.rates.weights.rate", "train.init_from", "metrics.jsonl"):
        assert fix in status["message"]
    assert diverged.checkpoints == [6]
    kept = load(diverged.workdir, "latest")
    assert np.isfinite(kept.probabilities(np.zeros((1, 14, 14, 1), np.uint8))).all()


def test_what_a_diverged_run_wrote_is_json(diverged: Run) -> None:
    steps = [line["step"] for line in diverged.lines]
    assert steps == list(range(1, diverged.status["step"]))


@pytest.mark.slow
def test_a_run_that_diverges_in_an_evaluation_saves_nothing_and_can_start_again(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first evaluation finds a loss that is not a number; other rates need no new workdir."""
    means = {"loss": math.nan, "top1": 0.0, "top5": 0.0, "count": 101}
    short = SHORT | {"train.duration": "3 steps", "train.evaluate_every": "2 steps"}
    with monkeypatch.context() as patch:
        patch.setattr(train, "evaluate", lambda *_: types.SimpleNamespace(means=lambda: means))
        failed = run(**short)
    assert (failed.code, failed.status["step"], failed.checkpoints) == (3, 2, [])
    assert "optimizer.rates.weights.rate" in failed.status["message"]
    again = run(failed.workdir, **(short | {"optimizer.rates.weights.rate": 0.001}))
    assert again.code == 0
    assert [line["step"] for line in again.lines] == [2, 3, 3]


# ---- Other ways to start


def test_a_warm_start_takes_the_parameters_of_another_run(
    run: Callable[..., Run], good: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """With rates of 0 they are still there after a step, the first one of the new run."""
    started = run(
        **SHORT,
        **{
            "train.init_from": good.workdir,
            "train.init_checkpoint": 8,
            "optimizer.rates.weights.rate": 0,
            "optimizer.rates.biases.rate": 0,
        },
    )
    assert started.code == 0
    assert [line["step"] for line in started.lines] == [2, 2]
    assert started.status["step"] == 2
    expected, found = load(good.workdir, 8).params, load(started.workdir).params
    assert jax.tree.all(jax.tree.map(np.array_equal, expected, found))


def test_a_warm_start_of_another_shape_is_refused(
    run: Callable[..., Run], good: Run, tmp_path: Path
) -> None:
    start = SHORT | {"train.init_from": good.workdir}
    more_classes = run(**start, **{"model.num_classes": 12})
    assert more_classes.code == 2
    assert "train.init_new_head" in more_classes.status["message"]
    wider = run(**start, **{"model.layers.fc4.features": 20})
    assert wider.code == 2
    assert "params/fc4/kernel" in wider.status["message"]
    assert run(**SHORT, **{"train.init_from": tmp_path}).code == 2
    assert run(**start, **{"augment.scale": 0.5}).code == 2  # of the run it is 1 / 64


def test_a_finished_run_is_extended(run: Callable[..., Run]) -> None:
    first = run(**SHORT)
    longer = run(first.workdir, **(SHORT | {"train.duration": "4 steps"}))
    assert longer.code == 0
    assert [(line["split"], line["step"]) for line in longer.lines] == [
        *(("train", 2), ("val", 2)),
        *(("train", 4), ("val", 4)),
    ]


def write_images(root: Path, classes: Sequence[str], count: int = 2) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in classes:
            folder = root / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (28, 28), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.jpg")


@pytest.fixture(scope="module")
def fine_tuned(
    run: Callable[..., Run], good: Run, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, dict[str, Any]]:
    """Returns a run on other classes with a new head and frozen convolutions, and its keys."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, "abc")
    keys: dict[str, Any] = {
        "data.source": "folder",
        "data.root": root,
        "data.train_split": "train",
        "data.eval_split": "val",
        "train.duration": "4 steps",
        "train.init_from": good.workdir / "checkpoints" / "8",
        "train.init_new_head": True,
        "train.scratch_baseline": True,
        "optimizer.rates.frozen.pattern": "Conv/",
        "optimizer.rates.frozen.rate": 0,
        "optimizer.rates.weights.schedule": "constant",
        "optimizer.rates.biases.schedule": "constant",
    }
    return run(**keys), keys


def test_fine_tuning_takes_all_but_the_head(
    fine_tuned: tuple[Run, dict[str, Any]], good: Run
) -> None:
    tuned, _ = fine_tuned
    assert tuned.code == 0
    source, found = load(good.workdir, 8), load(tuned.workdir, "latest")
    assert (found.class_names, found.model.num_outputs) == (("a", "b", "c"), 3)
    for layer, arrays in source.params.items():
        same = [np.array_equal(x, found.params[layer][name]) for name, x in arrays.items()]
        assert all(same) if layer.startswith("conv") else not any(same), layer
    assert found.params["fc4"]["kernel"].shape == source.params["fc4"]["kernel"].shape
    assert found.augmentation == source.augmentation  # the scale
    np.testing.assert_array_equal(found.statistics["mean"], source.statistics["mean"])
    messages = " ".join(message for _, message in tuned.log)
    assert "Taken: conv1, conv2, conv3, fc4. Freshly initialized: fc5." in messages
    assert "Frozen, without a gradient: conv1, conv2, conv3." in messages


def test_the_baseline_from_scratch_has_the_same_budget(
    run: Callable[..., Run], fine_tuned: tuple[Run, dict[str, Any]]
) -> None:
    tuned, keys = fine_tuned
    scratch = Workdir(tuned.workdir / "scratch")
    last, expected = scratch.last, Workdir(tuned.workdir).last
    for split in ("train", "val"):
        for name in ("step", "epoch", "count"):
            assert last[split][name] == expected[split][name]
    found = load(scratch.path)
    assert found.config["train"]["init_from"] is None
    assert not np.array_equal(found.statistics["mean"], load(tuned.workdir).statistics["mean"])
    assert last["train"]["learning_rates"].keys() == {"weights", "biases"}
    again = run(tuned.workdir, **keys)
    assert (again.code, again.compiled.count("jit(train_step)")) == (0, 0)


def test_a_run_is_not_resumed_on_other_classes(run: Callable[..., Run], tmp_path: Path) -> None:
    root = tmp_path / "images"
    write_images(root, "abcdefghij")
    options = {
        "data.source": "folder",
        "data.root": root,
        "data.train_split": "train",
        "data.eval_split": "val",
    }
    first = run(**(SHORT | options))
    assert first.code == 0
    longer = SHORT | options | {"train.duration": "4 steps"}
    for split in ("train", "val"):
        (root / split / "c").rename(root / split / "z")
    renamed = run(first.workdir, **longer)
    assert renamed.code == 2
    assert "'c'" in renamed.status["message"]
    assert "'z'" in renamed.status["message"]
    write_images(root, "ck")
    shutil.rmtree(root / "train" / "z")
    shutil.rmtree(root / "val" / "z")
    added = run(first.workdir, **longer)
    assert added.code == 2
    assert "'k'" in added.status["message"]
    assert "params/" not in added.status["message"]
    assert load(first.workdir).class_names == tuple("abcdefghij")


def test_outputs_without_a_class_are_named(run: Callable[..., Run]) -> None:
    wide = run(**SHORT, **{"model.layers.fc5.features": 12})
    assert wide.code == 0
    assert load(wide.workdir).class_names[9:] == ("9", "unused 10", "unused 11")
    assert run(**SHORT, **{"model.layers.fc5.features": 9}).code == 2


# ---- What can go wrong with files


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        full = run(**SHORT)
    assert (full.code, full.status["status"], full.checkpoints) == (2, "failed", [])
    assert f"{full.workdir}/checkpoints/2" in full.status["message"]
    assert run(full.workdir, **SHORT).code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tensorboard", "checkpoints"])
def test_a_file_in_place_of_a_folder_is_refused(
    run: Callable[..., Run], tmp_path: Path, name: str
) -> None:
    (tmp_path / name).touch()
    refused = run(tmp_path, **SHORT)
    assert refused.code == 2
    assert str(tmp_path / name) in refused.status["message"]


def test_figures_do_not_matter_to_a_run(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("font")

    with monkeypatch.context() as patch:
        patch.setattr("alexnet_jax.plots.training.kernels", fail)
        drawn = run(draw=True, **SHORT)
    assert (drawn.code, drawn.status["status"]) == (0, "done")
    assert any("KeyError: 'font'" in text for text in drawn.warnings)


# ---- A run that does not learn, because its images are all black to it; one cannot be read


CLASSES, IMAGES = 10, 2


@pytest.fixture(scope="module")
def stuck(run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """The run, and the image that cannot be read."""
    root = tmp_path_factory.mktemp("images")
    write_images(root, [f"class{label}" for label in range(CLASSES)], IMAGES)
    broken = root / "train" / "class2" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:200])
    return run(
        **{
            "data.source": "folder",
            "data.root": root,
            "augment.scale": 1e-6,
            "train.log_every": "2 steps",
            "train.evaluate_every": "4 steps",
            "train.stuck_after": "4 steps",
            "optimizer.rates.weights.schedule": "plateau",
            "optimizer.rates.biases.schedule": "plateau",
            "optimizer.plateau.patience": 1,
        }
    ), broken


def test_a_stuck_run_is_reported_once_with_its_likely_causes(stuck: tuple[Run, Path]) -> None:
    """At chance from the start; said at the first line four steps later, and only once."""
    run, _ = stuck
    chance = math.log(CLASSES)
    assert all(line["loss"] == pytest.approx(chance, rel=0.01) for line in run.lines)
    (warning,) = (text for text in run.warnings if "guessing" in text)
    assert warning.startswith("Step 4: ")
    assert f"{chance:.4f}" in warning
    for key in ("augment.scale", "model.initializer", "optimizer.rates.weights.rate"):
        assert key in warning


def test_an_unreadable_image_is_named_once_and_training_goes_on(stuck: tuple[Run, Path]) -> None:
    run, broken = stuck
    assert run.code == 0
    named = [text for text in run.warnings if "nreadable" in text]
    assert len(named) == 1
    assert str(broken) in named[0]
    train = [line for line in run.lines if line["split"] == "train"]
    epochs = STEPS * BATCH // (CLASSES * IMAGES)
    assert sum(line["count"] for line in train) == STEPS * BATCH - epochs


def test_a_plateau_is_decided_once_an_evaluation(stuck: tuple[Run, Path]) -> None:
    """Evaluated after steps 4, 8 and 12; the second is no better than the first."""
    run, _ = stuck
    rates = [line["learning_rates"]["weights"] for line in run.lines if line["split"] == "train"]
    accuracies = {line["top1"] for line in run.lines if line["split"] == "val"}
    assert accuracies == {1 / CLASSES}
    assert rates == pytest.approx([0.01] * 4 + [0.001] * 2)
