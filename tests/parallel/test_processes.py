"""Real processes over gloo: they train what one does, stop together, and wait for no lost one."""

import contextlib
import json
import os
import re
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
from alexnet_jax.main import main
from alexnet_jax.parallel.distributed import Processes, find_processes
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import load

OPTIONS = (
    "--config=configs/quickstart.py",
    "--config.augment.mean=channel",
    "--config.data.eval_split=val[:137]",  # no multiple of the batch or of the processes
    "--config.train.batch_size=20",
    "--config.train.log_every=5 steps",
    "--config.train.evaluate_every=20 steps",
    "--config.checkpoint.every=10 steps",
    # small rates, so that rounding does not grow into other decisions of the ReLUs
    "--config.optimizer.rates.weights.rate=0.0005",
    "--config.optimizer.rates.biases.rate=0.001",
)
HEARTBEATS = {"ALEXNET_JAX_HEARTBEAT_SECONDS": "0.3", "ALEXNET_JAX_LOST_AFTER_SECONDS": "6"}
LOST_WITHIN_SECONDS = 60


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def processes(
    count: int,
    workdir: Path,
    steps: int = 0,
    *options: str,
    of_last: tuple[str, ...] = (),
    program: str = "",
) -> Iterator[list[subprocess.Popen[str]]]:
    """Starts processes as launch/local.sh does, or of a program; none is left behind."""
    shared = {
        **os.environ,
        **HEARTBEATS,
        "JAX_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
        "JAX_NUM_PROCESSES": str(count),
        "JAX_NUM_CPU_DEVICES": "1",
    }
    command = [sys.executable, "-m", "alexnet_jax.main", *OPTIONS, f"--workdir={workdir}"]
    command += [f"--config.train.duration={steps} steps", *options]
    if program:
        command = [sys.executable, "-c", program]
        shared["ALEXNET_JAX_LOST_AFTER_SECONDS"] = "3"
    with contextlib.ExitStack() as stack:
        started = []
        for index in range(count):
            path = workdir.parent / f"{workdir.name}-{index}.log"
            process = subprocess.Popen(
                [*command, *(of_last if index == count - 1 else ())],
                env={**shared, "JAX_PROCESS_ID": str(index)},
                stdout=stack.enter_context(path.open("w")),
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
        yield started


def exit_codes(started: list[subprocess.Popen[str]], seconds: float = 300) -> list[int]:
    deadline = time.monotonic() + seconds
    return [process.wait(max(deadline - time.monotonic(), 0.1)) for process in started]


def wait_until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def logs_of(workdir: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(workdir.parent.glob("*.log")))


def status_of(workdir: Path) -> dict[str, Any]:
    status: dict[str, Any] = json.loads((workdir / "status.json").read_text())
    return status


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """Without timings; the count, 100 or 137, identifies the split."""
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
    options = ("--config.train.duration=20 steps", "--config.parallel.strategy=single")
    assert main([*OPTIONS, *options, f"--workdir={workdir}"]) == EXIT_DONE
    return workdir


def assert_same_run(workdir: Path, one_process: Path) -> None:
    """Metrics and evaluation cover the examples of all processes, an odd number of them."""
    expected = metrics(one_process)
    assert expected[-1]["count"] == 137
    assert metrics(workdir) == [pytest.approx(line, rel=1e-4) for line in expected]
    found = parameters(workdir)
    for name, array in parameters(one_process).items():
        assert np.linalg.norm(found[name] - array) <= 1e-4 * np.linalg.norm(array), name
    assert status_of(workdir)["exit_code"] == EXIT_DONE


# One of two processes that share a small training step, stop together, and then wait for a stop
# that never comes. It imports no more than that takes.
SMALL_RUN = """
import os, sys, time
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from alexnet_jax.data.pipeline import Batch
from alexnet_jax.parallel import distributed
from alexnet_jax.parallel.mesh import host_slice, make_layout, on_host, put_batch
from alexnet_jax.runtime.signals import stop_requests

found = distributed.find_processes(os.environ, (None, None, None))
assert distributed.connect(found) == found.index
mesh = make_layout("data").mesh
host = host_slice(mesh)
rows = np.split(np.arange(8, dtype=np.float32).reshape(8, 1), host.count)[host.index]
batch = put_batch(Batch(rows, rows, rows, rows), mesh)
step = jax.jit(lambda w, x: w + x.T @ x, out_shardings=NamedSharding(mesh, P()))
with distributed.heartbeats(), distributed.monitor_processes(), stop_requests() as stop_requested:
    total, number = jnp.zeros((1, 1)), 0
    stopped = False
    while not stopped:
        total, number = step(total, batch.images), number + 1
        assert float(on_host(total, mesh)[0, 0]) == number * 140
        assert on_host(batch.labels, mesh).ravel().tolist() == list(range(8))
        stopped = stop_requested()
        print("step" if not stopped else f"stopped at {number}", flush=True)
        time.sleep(0.1)
    while True:
        on_host(step(total, batch.images), mesh)
        time.sleep(0.1)
"""


def test_two_processes_share_a_batch_stop_together_and_notice_a_lost_one(tmp_path: Path) -> None:
    """The parts of the slower tests below, without a model."""
    with processes(2, tmp_path / "run", program=SMALL_RUN) as started:
        logs = [tmp_path / f"run-{index}.log" for index in range(2)]
        wait_until(lambda: all("step" in log.read_text() for log in logs))
        started[1].send_signal(signal.SIGTERM)
        wait_until(lambda: all("stopped" in log.read_text() for log in logs))
        stops = [re.findall(r"stopped at \d+", log.read_text()) for log in logs]
        assert stops[0] == stops[1]
        started[1].kill()
        assert exit_codes(started[:1], LOST_WITHIN_SECONDS) == [EXIT_LOST_PROCESS], logs_of(
            tmp_path / "run"
        )
        assert "Process 1 is lost" in logs[0].read_text()


@pytest.mark.slow
def test_a_stopped_run_resumes_and_equals_that_of_one_process(
    one_process: Path, tmp_path: Path
) -> None:
    """A signal to one process stops all at one step; under another strategy they go on."""
    workdir = tmp_path / "run"
    with processes(2, workdir, 20, "--config.parallel.strategy=data") as started:
        wait_until((workdir / "metrics.jsonl").exists)
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started) == [EXIT_PREEMPTED] * 2, logs_of(workdir)
    status = status_of(workdir)
    assert (status["status"], status["exit_code"]) == ("preempted", EXIT_PREEMPTED)
    assert status["step"] <= 20
    with processes(2, workdir, 20, "--config.parallel.strategy=tower") as started:
        assert exit_codes(started) == [EXIT_DONE] * 2, logs_of(workdir)
    assert_same_run(workdir, one_process)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other(lost: int, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes(2, workdir, 1_000_000) as started:
        wait_until((workdir / "metrics.jsonl").exists)
        started[lost].kill()
        codes = exit_codes([started[1 - lost]], LOST_WITHIN_SECONDS)
        assert codes == [EXIT_LOST_PROCESS], logs_of(workdir)
    assert f"Process {lost}" in logs_of(workdir)
    if lost == 1:
        assert status_of(workdir)["exit_code"] == EXIT_LOST_PROCESS


@pytest.mark.slow
def test_four_processes_train_what_one_does(one_process: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes(4, workdir, 20, "--config.parallel.strategy=hybrid") as started:
        assert exit_codes(started) == [EXIT_DONE] * 4, logs_of(workdir)
    assert_same_run(workdir, one_process)


@pytest.mark.slow
def test_two_processes_evaluate_together(one_process: Path) -> None:
    """They find what training found last, and one of them reports."""
    options = ("--config.job=evaluate", "--config.evaluation.checkpoint=latest")
    with processes(2, one_process, 20, *options, "--config.parallel.strategy=tower") as started:
        assert exit_codes(started) == [EXIT_DONE] * 2, logs_of(one_process)
    result = json.loads((one_process / "evaluation.json").read_text())
    for name, expected in metrics(one_process)[-1].items():
        if name != "step":
            assert result[name] == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    with processes(2, whole, 40) as started:
        assert exit_codes(started) == [EXIT_DONE] * 2, logs_of(whole)
    with processes(2, stopped, 40) as started:
        wait_until((stopped / "checkpoints" / "10").exists)
        started[1].send_signal(signal.SIGTERM)
        assert exit_codes(started) == [EXIT_PREEMPTED] * 2, logs_of(stopped)
    with processes(2, stopped, 40) as started:
        assert exit_codes(started) == [EXIT_DONE] * 2, logs_of(stopped)
    found = parameters(stopped)
    for name, array in parameters(whole).items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert metrics(stopped) == metrics(whole)


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(one_process: Path) -> None:
    """That process reports it; the others, which wait for it, find it lost."""
    options = ("--config.job=evaluate", "--config.parallel.strategy=data")
    wrong = ("--config.evaluation.checkpoint=7",)
    with processes(2, one_process, 20, *options, of_last=wrong) as started:
        codes = exit_codes(started, 100)
        assert codes == [EXIT_LOST_PROCESS, EXIT_INPUT], logs_of(one_process)
    log = (one_process.parent / "run-1.log").read_text()
    assert "error: " in log
    assert "stack trace" not in log


@pytest.mark.slow
def test_all_processes_report_a_config_error(tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    with processes(2, workdir, 20, "--config.train.batch_size=21") as started:
        assert exit_codes(started, 100) == [EXIT_INPUT] * 2, logs_of(workdir)
    for path in tmp_path.glob("*.log"):
        assert "train.batch_size" in path.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_never_comes_is_reported(index: int) -> None:
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
    assert address in process.stderr
    assert "Traceback" not in process.stderr


NOTHING = (None, None, None)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes(1)),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}, Processes(4, 3)),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, Processes(2, 1)),
        (
            {
                "JAX_NUM_PROCESSES": "2",
                "JOB_COMPLETION_INDEX": "1",
                "JAX_COORDINATOR_ADDRESS": "job-0.service:1",
            },
            Processes(2, 1, "job-0.service:1"),
        ),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d"}, Processes(4)),
    ],
)
def test_launchers_describe_the_processes(environment: dict[str, str], expected: Processes) -> None:
    assert find_processes(environment, NOTHING) == expected


def test_the_config_comes_before_the_launcher() -> None:
    environment = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
    configured = (2, 1, "[::1]:80")
    assert find_processes(environment, configured) == Processes(*configured)


SLURM = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}
LOCAL = {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}


@pytest.mark.parametrize(
    ("environment", "configured", "key"),
    [
        ({}, (2, None, None), "parallel.process_index and parallel.coordinator"),
        ({}, (2, 2, "localhost:1"), "parallel.process_index"),
        ({**SLURM, "SLURM_PROCID": "2"}, NOTHING, "SLURM_PROCID"),
        ({**SLURM, "SLURM_PROCID": "one"}, NOTHING, "SLURM_PROCID"),
        (LOCAL, NOTHING, "JAX_COORDINATOR_ADDRESS"),
        (
            {**LOCAL, "JAX_COORDINATOR_ADDRESS": "localhost:99999"},
            NOTHING,
            "JAX_COORDINATOR_ADDRESS",
        ),
        ({}, (2, 0, "no.such.host.invalid:1234"), "parallel.coordinator"),
        *(
            ({}, (2, 0, address), "parallel.coordinator")
            for address in (
                *("localhost", "localhost:", ":1234", "localhost:x", "localhost:0", "::1:80"),
                *("localhost:65536", "localhost:-1", "localhost:1e3", "a b:80", "http://a:80", ""),
                *("localhost:١٢", "localhost:8080\n", "[::1]", "a/b:80", "localhost:99999999999"),
            )
        ),
    ],
)
def test_a_wrong_description_is_refused(
    environment: dict[str, str], configured: tuple[Any, ...], key: str
) -> None:
    """JAX would crash on such an address, or wait forever."""
    with pytest.raises(InputError, match=key):
        find_processes(environment, configured)
