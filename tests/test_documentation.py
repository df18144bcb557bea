"""Every documented command of the program runs to its end, shortened, on real images."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from documented import documented, split_command
from PIL import Image

from alexnet_jax.data.digits import read_digits

ROOT = Path(__file__).parents[1]
SIZES = {"train": 12, "val": 6}  # images per class

# What shortens a command; the batch of 32 is one crop group of configs/paper.py.
SHORT = (
    "--config.train.batch_size=32",
    "--config.train.duration=2 steps",
    "--config.train.log_every=1 step",
    "--config.train.evaluate_every=2 steps",
    "--config.checkpoint.every=2 steps",
)


DOCUMENTED = list(documented())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder that looks like the clone, with real digits as JPEG files in DIR."""
    folder = tmp_path_factory.mktemp("documentation")
    for name in ("configs", "launch", "alexnet_jax"):
        (folder / name).symlink_to(ROOT / name)
    images, labels = read_digits()
    for label in np.unique(labels):
        members = iter(np.flatnonzero(labels == label))
        for split, count in SIZES.items():
            target = folder / "DIR" / split / f"digit {label}"
            target.mkdir(parents=True)
            for index in range(count):
                pixels = np.repeat(images[next(members)], 3, axis=-1)
                Image.fromarray(pixels).save(target / f"{index}.jpg")
    return folder


def shortened(args: list[str]) -> list[str]:
    """Returns the command on few images: those of DIR where it would read ImageNet."""
    joined = " ".join(args)
    training = "--config.job" not in joined and "--dry_run" not in args
    if "--help" in args:
        return args
    if training and "quickstart" not in joined and "smoke" not in joined:
        args = [*args, *SHORT]
    if "quickstart" in joined and training:
        args = [*args, *SHORT[1:]]
    reads_imagenet = "paper.py" in joined and "smoke" not in joined and "data.source" not in joined
    if reads_imagenet and not any(job in joined for job in ("summary", "estimate", "prepare")):
        args = [*args, "--config.data.source=folder", "--config.data.root=DIR"]
    return args


def run(place: Path, args: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alexnet_jax.main", *args],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_commands_are_found() -> None:
    files = {file for file, _ in DOCUMENTED}
    assert files >= {"README.md", "data.md", "parallelism.md", "paper.py", "quickstart.py"}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_command_runs_to_its_end(place: Path) -> None:
    """In the order of the documents: later commands use the runs of earlier ones."""
    seen = set()
    for file, text in DOCUMENTED:
        args = shortened(split_command(text))
        if tuple(args) in seen:
            continue
        seen.add(tuple(args))
        process = run(place, args)
        assert process.returncode == 0, f"{file}: {args}\n{process.stderr[-3000:]}"
