"""Real processes over gloo: the same run as one process, stopped together, never left waiting."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_jax.errors import EXIT_DONE, EXIT_INPUT, EXIT_LOST_PROCESS, EXIT_PREEMPTED, InputError
from alexnet_jax.parallel.distributed import Processes, find_processes
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import load

COMMAND = (
    sys.executable,
    "-m",
    "alexnet_jax.main",
    "--config=configs/quickstart.py",
    "--config.augment.mean=channel",
    "--config.data.eval_split=val[:137]",  # no multiple of anything
    "--config.train.batch_size=20",
    "--config.train.log_every=5 steps",
    "--config.train.evaluate_every=20 steps",
    "--config.checkpoint.every=10 steps",
    # small steps, lest the last digits of sums grow into other decisions of the ReLUs
    "--config.optimizer.rates.weights.rate=0.0005",
    "--config.optimizer.rates.biases.rate=0.001",
)
LOST_WITHIN_SECONDS = 60


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def processes(
    count: int, workdir: Path, steps: int, *words: str, to_last: str | None = None
) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts them as launch/local.sh does; none is left behind. `to_last` is a word for one."""
    shared = {
        **os.environ,
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    duration = f"--config.train.duration={steps} steps"
    logs = [(workdir.parent / f"{workdir.name}-{index}.log").open("w+") for index in range(count)]
    started = [
        subprocess.Popen(
            [
                *(*COMMAND, duration, f"--workdir={workdir}", *words),
                *((to_last,) if to_last and index == count - 1 else ()),
            ],
            env={**shared, "JAX_PROCESS_ID": str(index)},
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index, log in enumerate(logs)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()
        for log in logs:
            log.close()


def codes(started: list[subprocess.Popen[str]], seconds: float = 300) -> list[int]:
    deadline = time.monotonic() + seconds
    return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in started]


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logs_of(workdir: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(workdir.parent.glob("*.log")))


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """Without timings: `split` is told by the count, 100 or 137."""
    names = ("step", "loss", "top1", "top5", "count")
    return [{name: line[name] for name in names} for line in Workdir(workdir).read_metrics()]


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    params = load(workdir, "latest").params
    return {
        f"{layer}/{name}": np.asarray(array)
        for layer, arrays in params.items()
        for name, array in arrays.items()
    }


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of 20 steps by one process with one device."""
    workdir = tmp_path_factory.mktemp("one") / "run"
    words = ["--config.train.duration=20 steps", "--config.parallel.strategy=single"]
    subprocess.run([*COMMAND, *words, f"--workdir={workdir}"], check=True, capture_output=True)
    return workdir


@pytest.mark.parametrize(("count", "strategy"), [(2, "tower"), (2, "data"), (4, "hybrid")])
def test_processes_train_what_one_does(
    count: int, strategy: str, one_process: Path, tmp_path: Path
) -> None:
    """Metrics and evaluation are of all hosts, an odd number of pictures included."""
    workdir = tmp_path / "run"
    with processes(count, workdir, 20, f"--config.parallel.strategy={strategy}") as started:
        assert codes(started) == [EXIT_DONE] * count, logs_of(workdir)
    lines, expected = metrics(workdir), metrics(one_process)
    assert expected[-1]["count"] == 137
    assert lines == [pytest.approx(line, rel=1e-4) for line in expected]
    ours, theirs = parameters(workdir), parameters(one_process)
    for name, array in theirs.items():
        assert np.linalg.norm(ours[name] - array) <= 1e-4 * np.linalg.norm(array), name
    assert json.loads((workdir / "status.json").read_text())["exit_code"] == EXIT_DONE
    if strategy == "tower":
        evaluated_together(workdir, lines[-1])


def evaluated_together(workdir: Path, expected: dict[str, Any]) -> None:
    """Job evaluate by two processes finds what training found last, and one of them reports."""
    words = ("--config.job=evaluate", "--config.evaluation.checkpoint=latest")
    with processes(2, workdir, 20, *words, "--config.parallel.strategy=tower") as started:
        assert codes(started) == [EXIT_DONE] * 2, logs_of(workdir)
    result = json.loads((workdir / "evaluation.json").read_text())
    for name in ("count", "loss", "top1", "top5"):
        assert result[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_signal_to_one_stops_all_at_one_step(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with processes(2, whole, 40) as started:
        assert codes(started) == [EXIT_DONE] * 2, logs_of(whole)
    with processes(2, stopped, 40) as started:
        wait_until((stopped / "checkpoints" / "10").exists)
        started[1].send_signal(signal.SIGTERM)
        assert codes(started) == [EXIT_PREEMPTED] * 2, logs_of(stopped)
    status = json.loads((stopped / "status.json").read_text())
    assert (status["status"], status["exit_code"]) == ("preempted", EXIT_PREEMPTED)
    assert 10 <= status["step"] < 40
    with processes(2, stopped, 40) as started:
        assert codes(started) == [EXIT_DONE] * 2, logs_of(stopped)
    ours, theirs = parameters(stopped), parameters(whole)
    for name, array in theirs.items():
        np.testing.assert_array_equal(ours[name], array, err_msg=name)
    assert metrics(stopped) == metrics(whole)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_peer_ends_the_other(lost: int, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes(2, workdir, 1_000_000) as started:
        wait_until((workdir / "checkpoints" / "10").exists)
        started[lost].kill()
        assert codes([started[1 - lost]], LOST_WITHIN_SECONDS) == [EXIT_LOST_PROCESS], logs_of(
            workdir
        )
    assert "is gone" in logs_of(workdir)
    if lost == 1:
        status = json.loads((workdir / "status.json").read_text())
        assert (status["status"], status["exit_code"]) == ("lost peer", EXIT_LOST_PROCESS)


@pytest.mark.parametrize("index", [0, 1])
def test_a_peer_that_does_not_come_is_told(index: int) -> None:
    address = f"localhost:{free_port()}"
    program = (
        "from alexnet_jax.parallel import distributed\n"
        "distributed._CONNECT_SECONDS = 3\n"
        f"distributed.connect(distributed.Processes(2, {index}, {address!r}))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert process.returncode == EXIT_INPUT, process.stderr
    assert f"The 2 processes did not meet at {address} within 3 s" in process.stderr
    assert "Traceback" not in process.stderr


def test_all_processes_tell_a_mistake(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes(2, workdir, 20, "--config.train.batch_size=21") as started:
        assert codes(started, 100) == [EXIT_INPUT] * 2, logs_of(workdir)
    for path in tmp_path.glob("*.log"):
        assert "21 does not divide by the 2 devices" in path.read_text()


def test_a_mistake_of_one_process_ends_all(one_process: Path) -> None:
    """That one tells it; the others, which wait for it, find it gone."""
    words = ("--config.job=evaluate", "--config.parallel.strategy=data")
    wrong = "--config.evaluation.checkpoint=7"
    with processes(2, one_process, 20, *words, to_last=wrong) as started:
        assert codes(started, 100) == [EXIT_LOST_PROCESS, EXIT_INPUT], logs_of(one_process)
    told = (one_process.parent / "run-1.log").read_text()
    assert "error: " in told
    assert "There is no checkpoint '7'" in told
    assert "stack trace" not in told


NOWHERE: dict[str, None] = dict.fromkeys(("processes", "process_index", "coordinator"))


@pytest.mark.parametrize(
    ("environment", "peers"),
    [
        ({}, Processes(1)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, Processes(4, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, Processes(2, 1)),
        (
            {
                "JAX_NUM_PROCESSES": "2",
                "JOB_COMPLETION_INDEX": "1",
                "JAX_COORDINATOR_ADDRESS": "a:1",
            },
            Processes(2, 1, "a:1"),
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, Processes(4)),
    ],
)
def test_launchers_are_understood(environment: dict[str, str], peers: Processes) -> None:
    assert find_processes(environment, NOWHERE) == peers


SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
LOCAL = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


@pytest.mark.parametrize(
    ("environment", "parallel", "told"),
    [
        ({}, {"processes": 2}, "set parallel.process_index and parallel.coordinator too"),
        (
            {},
            {"processes": 2, "process_index": 2, "coordinator": "a:1"},
            "parallel.process_index: 2 is not one of 2 processes",
        ),
        ({**SLURM, "SLURM_PROCID": "2"}, {}, "SLURM_PROCID: 2 is not one of 2 processes"),
        ({**SLURM, "SLURM_PROCID": "one"}, {}, "SLURM_PROCID of Slurm: invalid literal"),
        (LOCAL, {}, "JAX_COORDINATOR_ADDRESS=HOST:PORT of process 0 is missing"),
    ],
)
def test_what_is_told_of_the_peers_must_fit(
    environment: dict[str, str], parallel: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        find_processes(environment, {**NOWHERE, **parallel})
