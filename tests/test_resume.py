"""Stopping a run in every way and starting it again: the same bits as one never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import load
from alexnet_jax.training.checkpoint import Checkpoints

COMMAND = (
    sys.executable,
    "-m",
    "alexnet_jax.main",
    "--config=configs/quickstart.py",
    "--config.data.eval_split=val[:137]",
    "--config.train.batch_size=20",
    "--config.train.duration=60 steps",
    "--config.train.log_every=7 steps",
    "--config.train.evaluate_every=15 steps",
    "--config.checkpoint.every=10 steps",
    # All there is of augmentation, and its end on the way.
    "--config.augment.random_flip=True",
    "--config.augment.crop_group_size=5",
    "--config.augment.rotation_degrees=5",
    "--config.augment.mean=image_at_crop",
    "--config.augment.color_noise=code",
    "--config.augment.color_noise_until=25 steps",
)


def start(workdir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, f"--workdir={workdir}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(workdir: Path) -> str:
    """Runs to the end and returns what was logged."""
    process = start(workdir)
    _, log = process.communicate(timeout=300)
    assert process.returncode == 0, log
    return log


def stop_at(workdir: Path, number: signal.Signals, reached: Callable[[], bool]) -> tuple[int, str]:
    """Starts the run and sends it a signal as soon as `reached` holds."""
    process = start(workdir)
    deadline = time.monotonic() + 300
    while not reached() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    os.kill(process.pid, number)
    _, log = process.communicate(timeout=300)
    return process.returncode, log


def has_line(workdir: Path, step: int) -> Callable[[], bool]:
    return lambda: any(line["step"] >= step for line in Workdir(workdir).read_metrics())


def has_checkpoint(workdir: Path, step: int) -> Callable[[], bool]:
    return (workdir / "checkpoints" / str(step)).exists


def untimed_metrics(workdir: Path) -> list[dict[str, Any]]:
    timings = ("images_per_second", "elapsed_seconds")
    return [
        {name: value for name, value in line.items() if name not in timings}
        for line in Workdir(workdir).read_metrics()
    ]


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    params = load(workdir, "latest").params
    return {
        f"{layer}/{name}": np.asarray(array)
        for layer, arrays in params.items()
        for name, array in arrays.items()
    }


def checksums(workdir: Path) -> dict[str, str]:
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    return checkpoints.about(checkpoints.find("latest"))["checksums"]


def assert_same_run(workdir: Path, other: Path) -> None:
    """Same parameters bit for bit, same whole state by digest, same metrics but for timings."""
    ours, theirs = parameters(workdir), parameters(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert checksums(workdir) == checksums(other)
    assert untimed_metrics(workdir) == untimed_metrics(other)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("whole")
    finish(workdir)
    return workdir


def test_status_and_rerun_of_a_finished_run(whole: Path) -> None:
    before = untimed_metrics(whole)
    status = json.loads((whole / "status.json").read_text())
    assert (status["status"], status["step"], status["exit_code"]) == ("done", 60, 0)
    assert status["last"]["val"]["count"] == 137
    process = start(whole)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert "is finished: 60 of 60 steps are done" in output
    assert "Going on" not in output
    assert untimed_metrics(whole) == before


def test_sigkill_twice_and_resume(whole: Path, tmp_path: Path) -> None:
    """Killed just after a log line, then while a checkpoint is being written."""
    code, _ = stop_at(tmp_path, signal.SIGKILL, has_line(tmp_path, 21))
    assert code == -signal.SIGKILL
    saving = tmp_path / "checkpoints"

    def is_saving() -> bool:
        return (
            any("tmp" in entry.name for entry in saving.iterdir())
            and has_checkpoint(tmp_path, 30)()
        )

    code, _ = stop_at(tmp_path, signal.SIGKILL, is_saving)
    assert code == -signal.SIGKILL
    log = finish(tmp_path)
    assert "Going on from step" in log
    assert_same_run(tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_and_resume(whole: Path, tmp_path: Path, number: signal.Signals) -> None:
    code, log = stop_at(tmp_path, number, has_line(tmp_path, 14))
    assert code == 75, log
    assert "state is saved, and the same command goes on" in log
    assert "Traceback" not in log
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    assert has_checkpoint(tmp_path, status["step"])()
    finish(tmp_path)
    assert_same_run(tmp_path, whole)


def test_a_metrics_line_cut_short_is_dropped(whole: Path, tmp_path: Path) -> None:
    stop_at(tmp_path, signal.SIGKILL, has_checkpoint(tmp_path, 20))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "spl')
    finish(tmp_path)
    assert_same_run(tmp_path, whole)
