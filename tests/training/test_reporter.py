"""Timer, progress and reporter: times without pauses, one line written to every place."""

import io
import json
import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alexnet_jax.runtime.progress import Progress
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.training.reporter import Reporter, Timer

LINE = {
    "step": 6,
    "epoch": 1.5,
    "split": "train",
    "loss": 1.25,
    "top1": 0.5,
    "top5": 0.875,
    "count": 40,
    "learning_rates": {"weights": 0.03125},
    "norms": {"conv1/kernel": {"gradient": 3.0, "ratio": 0.125}},
    "images_per_second": 123.4,
    "elapsed_seconds": 2.0,
}


# ---- Timer


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Returns a function that lets seconds pass."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def test_rates_leave_pauses_out_but_all_time_counts(passing: Callable[[float], None]) -> None:
    clock = Timer(elapsed=100.0)
    passing(3)
    with clock.pause():
        passing(50)
    passing(4)
    assert clock.lap(step=21) == 3
    passing(2)
    assert clock.lap(step=22) == 0.5
    assert clock.elapsed == 159


def test_a_pause_ends_with_an_error_too(passing: Callable[[float], None]) -> None:
    clock = Timer()

    def fail() -> None:
        with clock.pause():
            passing(5)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    passing(1)
    assert clock.lap(step=1) == 1


# ---- Progress


def test_a_log_gets_lines_early_and_then_less_often(
    caplog: pytest.LogCaptureFixture, passing: Callable[[float], None]
) -> None:
    """Steps of 7 s: the first after 5 s, then every 15 s, then every tenth of the elapsed time."""
    caplog.set_level(logging.INFO, logger="alexnet_jax")
    with Progress(Console(file=io.StringIO()), "step", 1000) as progress:
        for step in range(1, 1001):
            passing(7)
            progress.advance(step)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "step 1/1000  7 s each  ETA 1:56:33"
    steps = [int(line.split()[1].partition("/")[0]) for line in lines]
    assert steps[:4] == [1, 4, 7, 10]
    assert len(steps) < 60
    assert steps[-1] - steps[-2] >= 80


def test_the_time_left_is_at_the_pace_since_the_start(
    caplog: pytest.LogCaptureFixture, passing: Callable[[float], None]
) -> None:
    """Started at step 2, at step 6 after 40 s: the four steps left take 40 s more."""
    caplog.set_level(logging.INFO, logger="alexnet_jax")
    with Progress(Console(file=io.StringIO()), "step", 10, start=2) as progress:
        passing(40)
        progress.report(6, "loss 1.5")
    assert caplog.records[-1].getMessage() == "step 6/10  loss 1.5  ETA 0:00:40"


def test_a_terminal_gets_a_bar_instead_of_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="alexnet_jax")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with Progress(console, "steps of [run]", 10) as progress:
        progress.advance(10)
        progress.report(10, "train loss 1.2500")
    assert "steps of [run]" in screen.getvalue()
    assert "10/10" in screen.getvalue()
    assert "train loss 1.2500" in screen.getvalue()
    assert not caplog.records


# ---- Reporter


def report(workdir: Workdir, *lines: dict[str, Any], start: int = 2) -> None:
    console = Console(file=io.StringIO())
    with (
        Progress(console, "step", 10, start) as progress,
        Reporter(workdir, progress, start) as reporter,
    ):
        for line in lines:
            reporter.record(line)


def scalars(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Reads (name, step, value) from TensorBoard's files: length, check sum, event, check sum."""
    for event in events(folder):
        for value in event.summary.value:
            yield value.tag, event.step, value.simple_value


def events(folder: Path) -> Iterator[Any]:
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack_from("<Q", data)
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_a_line_is_written_everywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="alexnet_jax")
    workdir = Workdir(tmp_path)
    val = {**LINE, "split": "val", "top1": 0.25, "norms": {}, "learning_rates": {}}
    report(workdir, LINE, val)
    lines = workdir.metrics.read_text().splitlines()
    assert [json.loads(line) for line in lines] == [LINE, val]
    assert set(scalars(workdir.tensorboard)) >= {
        ("train/loss", 6, 1.25),
        ("train/top1", 6, 0.5),
        ("train/learning_rates/weights", 6, 0.03125),
        ("train/norms/conv1/kernel/gradient", 6, 3.0),
        ("train/norms/conv1/kernel/ratio", 6, 0.125),
        ("val/top1", 6, 0.25),
    }
    status = json.loads(workdir.status.read_text())
    assert (status["status"], status["step"], status["best"]["top1"]) == ("running", 6, 0.25)
    train_line, val_line = (record.getMessage() for record in caplog.records)
    for part in ("step 6/10", "epoch 1.50", "train loss 1.2500", "top-1 50.00%", "123 images/s"):
        assert part in train_line
    assert "val loss 1.2500  top-1 25.00%" in val_line


def test_no_scalar_is_a_count_or_a_text(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    report(workdir, LINE)
    names = {name for name, _, _ in scalars(workdir.tensorboard)}
    assert {name.removeprefix("train/") for name in names} == {
        "epoch",
        "loss",
        "top1",
        "top5",
        "learning_rates/weights",
        "norms/conv1/kernel/gradient",
        "norms/conv1/kernel/ratio",
        "images_per_second",
        "elapsed_seconds",
    }


def test_a_resumed_run_overwrites_what_tensorboard_holds_beyond(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path)
    report(workdir, LINE, start=4)
    starts = [event.step for event in events(workdir.tensorboard) if event.session_log.status == 1]
    assert starts == [5]


def test_only_one_of_several_processes_writes(tmp_path: Path) -> None:
    report(Workdir(tmp_path, writes=False), LINE)
    assert not list(tmp_path.iterdir())
