"""Stopping a run in every way and starting it again: the same bits as an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from alexnet_jax.main import main
from alexnet_jax.reports import training as report
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import load
from alexnet_jax.training.checkpoint import Checkpoints

ARGUMENTS = (
    "--config=configs/quickstart.py",
    "--config.parallel.devices=2",
    "--config.data.eval_split=val[:37]",
    "--config.train.batch_size=10",
    "--config.train.duration=30 steps",
    "--config.train.log_every=4 steps",
    "--config.train.evaluate_every=15 steps",
    "--config.checkpoint.every=6 steps",
    # All kinds of augmentation; the color noise ends on the way.
    "--config.augment.random_flip=True",
    "--config.augment.crop_group_size=5",
    "--config.augment.rotation_degrees=5",
    "--config.augment.mean=image_at_crop",
    "--config.augment.color_noise=code",
    "--config.augment.color_noise_until=15 steps",
    "--config.augment.draw_first_batch=False",
)
RunMain = Callable[..., tuple[int, str, str]]


def start(workdir: Path) -> subprocess.Popen[str]:
    """With as many devices as this process has: sums over threads depend on their number."""
    return subprocess.Popen(
        [sys.executable, "-m", "alexnet_jax.main", *ARGUMENTS, f"--workdir={workdir}"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "JAX_NUM_CPU_DEVICES": str(jax.device_count())},
        text=True,
    )


def wait_until(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not reached() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def stop_at(workdir: Path, number: signal.Signals, reached: Callable[[], bool]) -> tuple[int, str]:
    """Starts the run and sends it a signal as soon as `reached` holds."""
    process = start(workdir)
    wait_until(process, reached)
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
    return checkpoints.metadata(checkpoints.find("latest"))["checksums"]


def assert_same_run(workdir: Path, other: Path) -> None:
    """The same parameters bit for bit, the same state by checksum, the same metrics but times."""
    ours, theirs = parameters(workdir), parameters(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    assert checksums(workdir) == checksums(other)
    assert untimed_metrics(workdir) == untimed_metrics(other)


@pytest.fixture(scope="module", autouse=True)
def _no_figures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "draw", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    assert main([*ARGUMENTS, f"--workdir={workdir}"]) == 0
    return workdir


def test_status_and_rerun_of_a_finished_run(run_main: RunMain, uninterrupted: Path) -> None:
    before = untimed_metrics(uninterrupted)
    status = json.loads((uninterrupted / "status.json").read_text())
    assert (status["status"], status["step"], status["exit_code"]) == ("done", 30, 0)
    assert status["last"]["val"]["count"] == 37
    code, output, _ = run_main(*ARGUMENTS, f"--workdir={uninterrupted}")
    assert code == 0
    assert "30 of 30 steps" in output
    assert untimed_metrics(uninterrupted) == before


def test_the_best_evaluation_is_the_best_checkpoint(uninterrupted: Path) -> None:
    best = json.loads((uninterrupted / "status.json").read_text())["best"]
    assert load(uninterrupted, "best").step == best["step"]


def is_saving_after(workdir: Path, step: int) -> Callable[[], bool]:
    """Returns whether a checkpoint is being saved while that of a step is complete."""

    def is_saving() -> bool:
        is_complete = has_checkpoint(workdir, step)()
        return is_complete and any("tmp" in path.name for path in workdir.glob("checkpoints/*"))

    return is_saving


def write_half_a_line(workdir: Path) -> None:
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 22, "spl')


def test_killed_and_resumed(
    run_main: RunMain, uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """While a checkpoint is saved, and with half of a log line written."""
    code, _ = stop_at(tmp_path, signal.SIGKILL, is_saving_after(tmp_path, 12))
    assert code == -signal.SIGKILL
    write_half_a_line(tmp_path)
    assert run_main(*ARGUMENTS, f"--workdir={tmp_path}")[0] == 0
    assert "Resuming from step 12" in caplog.text
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_twice_and_resumed(
    run_main: RunMain, uninterrupted: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a log line, with half of another one written; then while a checkpoint is saved."""
    code, _ = stop_at(tmp_path, signal.SIGKILL, has_line(tmp_path, 8))
    assert code == -signal.SIGKILL
    write_half_a_line(tmp_path)
    code, _ = stop_at(tmp_path, signal.SIGKILL, is_saving_after(tmp_path, 18))
    assert code == -signal.SIGKILL
    assert run_main(*ARGUMENTS, f"--workdir={tmp_path}")[0] == 0
    assert "Resuming from step 18" in caplog.text
    assert_same_run(tmp_path, uninterrupted)


def test_asked_to_stop_and_resumed(
    run_main: RunMain, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM, in this process."""
    append = Workdir.append_metrics

    def append_and_ask(workdir: Workdir, line: dict[str, Any]) -> None:
        append(workdir, line)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Workdir, "append_metrics", append_and_ask)
        code, _, log = run_main(*ARGUMENTS, f"--workdir={tmp_path}")
    assert code == 75
    assert "Stopping after this step" in log
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("preempted", 75)
    assert has_checkpoint(tmp_path, status["step"])()
    assert run_main(*ARGUMENTS, f"--workdir={tmp_path}")[0] == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_asked_to_stop_twice_and_resumed(
    run_main: RunMain, uninterrupted: Path, tmp_path: Path
) -> None:
    """By SIGTERM, then by Ctrl-C. Meanwhile a second program is refused."""
    for number, step in ((signal.SIGTERM, 8), (signal.SIGINT, 16)):
        process = start(tmp_path)
        wait_until(process, has_line(tmp_path, step))
        code, _, errors = run_main(*ARGUMENTS, f"--workdir={tmp_path}")
        assert code == 2
        assert f"process {process.pid} on " in errors
        process.send_signal(number)
        _, log = process.communicate(timeout=300)
        assert process.returncode == 75, log
        assert "Stopping after this step" in log
        assert "Traceback" not in log
        status = json.loads((tmp_path / "status.json").read_text())
        assert (status["status"], status["exit_code"]) == ("preempted", 75)
        assert has_checkpoint(tmp_path, status["step"])()
    assert run_main(*ARGUMENTS, f"--workdir={tmp_path}")[0] == 0
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_stopped_at_once(tmp_path: Path) -> None:
    """Ctrl-C until the program ends, as an impatient user presses it."""
    process = start(tmp_path)
    wait_until(process, has_line(tmp_path, 4))
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    log = process.communicate()[1]
    assert process.returncode in (75, 130), log
    assert log.count("Traceback") == log.count("Exception ignored")  # Python's, in a destructor
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("preempted", process.returncode)
