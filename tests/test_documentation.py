"""Every documented command of the program runs to its end, shortened, on real images."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import narrow_models
import numpy as np
import pytest
import torch_archive
from documented import documented, split_command
from PIL import Image
from weight_files import write_torchvision

from alexnet_jax.config import command_line
from alexnet_jax.config.fine_tuning import inherit
from alexnet_jax.data.digits import read_digits
from alexnet_jax.jobs import profile_input

ROOT = Path(__file__).parents[1]
SIZES = {"train": 4, "val": 2}  # images per class

# What shortens a command, each only where it applies.
SHORT_TRAINING = (
    "train.duration=2 steps",
    "train.log_every=1 step",
    "train.evaluate_every=2 steps",
    "checkpoint.every=2 steps",
    "augment.draw_first_batch=False",
)
FEW_EXAMPLES = ("train.batch_size=4", "data.eval_split=val[:8]")
SMALL_PAPER = (  # the convolutions are the paper's
    "augment.crop_group_size=2",
    "augment.mean_examples=8",
    "model.layers.fc6.features=32",
    "model.layers.fc7.features=32",
)
IMAGES = ("data.source=folder", "data.root=DIR")  # instead of ImageNet

DOCUMENTED: dict[tuple[str, ...], str] = {}  # the arguments of each command, its first file
for file, text in documented():
    DOCUMENTED.setdefault(tuple(split_command(text)), file)


def commands_of(*files: str, others: bool = False) -> pytest.MarkDecorator:
    """Parametrizes a test with the commands of some files, or of all others, in their order."""
    args = [args for args, file in DOCUMENTED.items() if (file in files) != others]
    return pytest.mark.parametrize("args", args, ids=" ".join)


@pytest.fixture(scope="class")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that looks like the clone, with real digits as JPEG files in DIR.

    A file of the name of torchvision's weights holds a narrow model.
    """
    folder = tmp_path_factory.mktemp("documentation")
    arrays = narrow_models.torchvision_arrays(classes=1000)
    (folder / "alexnet-owt-7be5be79.pth").write_bytes(torch_archive.archive_of(arrays))
    (folder / "configs").symlink_to(ROOT / "configs")
    images, labels = read_digits()
    Image.fromarray(images[0, ..., 0]).save(folder / "cat.jpg")
    for label in np.unique(labels):
        members = iter(np.flatnonzero(labels == label))
        for split, count in SIZES.items():
            target = folder / "DIR" / split / f"digit {label}"
            target.mkdir(parents=True)
            for index in range(count):
                pixels = np.repeat(images[next(members)], 3, axis=-1)
                Image.fromarray(pixels).save(target / f"{index}.jpg")
    write_torchvision(folder / "alexnet-owt-7be5be79.pth")
    return folder


def shortened(command: command_line.Command) -> list[str]:
    """Returns what else to set so that a command takes seconds."""
    job, config = command.job, command.config
    if job in ("", "summary", "estimate", "import_weights", "export"):
        return []
    keys: list[str] = []
    if job == "train":
        shutil.rmtree(command.workdir, ignore_errors=True)  # of another command
        keys += SHORT_TRAINING
    if job == "prepare":
        keys += ["prepare.processes=1"]
    elif config.data.source == "tfds":
        keys += IMAGES
    if config.model.name in ("paper", "paper_text"):
        keys += SMALL_PAPER
    if config.parallel.cpu_devices is None and config.parallel.devices is None:
        keys += [f"parallel.devices={1 if config.parallel.strategy == 'single' else 2}"]  # a CPU's
    return [f"--config.{key}" for key in (*FEW_EXAMPLES, *keys)]


@pytest.fixture
def run_to_the_end(
    folder: Path, run_main: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[tuple[str, ...]], None]:
    """Returns a function that runs a shortened command, in this process where that is the same."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(profile_input, "SECONDS_PER_STAGE", 0.1)

    def run(args: tuple[str, ...]) -> None:
        command = command_line.parse(args)
        command = inherit(command) if command.job else command
        if command.job == "estimate":  # of more devices than this process has
            words = [sys.executable, "-m", "alexnet_jax.main", *args]
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            subprocess.run(words, env=environment, check=True)
            return
        code, _, errors = run_main(*args, *shortened(command))
        assert code == 0, errors

    return run


def test_commands_are_found() -> None:
    files = {file for file, _ in documented()}
    assert files >= {"README.md", "data.md", "parallelism.md", "paper.py", "quickstart.py"}


# A class each, so that pytest-xdist runs them at the same time. Later commands of a file use the
# files of earlier ones.


@pytest.mark.slow
class TestReadme:
    @commands_of("README.md")
    def test_runs_to_its_end(
        self, args: tuple[str, ...], run_to_the_end: Callable[[tuple[str, ...]], None]
    ) -> None:
        run_to_the_end(args)


@pytest.mark.slow
class TestDocsAndConfigs:
    @commands_of("README.md", others=True)
    def test_runs_to_its_end(
        self, args: tuple[str, ...], run_to_the_end: Callable[[tuple[str, ...]], None]
    ) -> None:
        run_to_the_end(args)
