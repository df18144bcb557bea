"""The launchers, as far as they can be tested without their clusters."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

LAUNCH = Path(__file__).parents[1] / "launch"
SCRIPTS = sorted(path for path in LAUNCH.iterdir() if path.suffix in (".sh", ".sbatch"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_parse_and_name_their_command(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK) or script.suffix == ".sbatch"
    assert f"launch/{script.name}" in script.read_text()


@pytest.mark.parametrize("name", ["local.sh", "tpu_vm.sh"])
def test_without_arguments_the_usage_is_printed(name: str) -> None:
    process = subprocess.run([LAUNCH / name], capture_output=True, text=True)
    assert process.returncode == 2
    assert f"launch/{name} " in process.stderr


def test_kubernetes_objects_fit_their_schema() -> None:
    import kubernetes_validate

    objects: list[dict[str, Any]] = list(
        yaml.safe_load_all((LAUNCH / "kubernetes.yaml").read_text())
    )
    assert [tree["kind"] for tree in objects] == ["Service", "Job"]
    for tree in objects:
        kubernetes_validate.validate(tree, "1.31", strict=True)
    service, job = objects
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(variables["JAX_NUM_PROCESSES"]) == job["spec"]["completions"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    # pod 0 of the job, below the service's name, at the service's port
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert variables["JAX_COORDINATOR_ADDRESS"] == f"{job['metadata']['name']}-0.{name}:{port}"
    assert job["spec"]["template"]["spec"]["subdomain"] == name


def run_locally(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Runs launch/local.sh with a program in place of Python that knows its index."""
    python = folder / "python"
    python.write_text(f'#!/usr/bin/env bash\n[ "$1" = - ] && exec {sys.executable} -\n{program}\n')
    python.chmod(0o755)
    return subprocess.run(
        [LAUNCH / "local.sh", "2", "--config=FILE"],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )


KILL_0 = 'if [ "$JAX_PROCESS_ID" = 0 ]; then kill -KILL $$; fi'


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("exit 0", 0),
        ("exit $((2 * JAX_PROCESS_ID))", 2),
        ("exit $((75 - 75 * JAX_PROCESS_ID))", 75),
        (f"{KILL_0}; exit 76", 76),  # killed, and the other process noticed
        (f"{KILL_0}; exit 0", 137),  # nobody noticed
        ('[ "$JAX_PROCESS_ID" = 1 ] && kill -KILL $$; exit 76', 76),
    ],
)
def test_local_returns_the_exit_code_of_the_run(tmp_path: Path, program: str, code: int) -> None:
    process = run_locally(tmp_path, program)
    assert process.returncode == code, process.stderr
    assert len(list(tmp_path.glob("alexnet_jax.*"))) == (code not in (0, 75))  # the kept output


def test_local_describes_the_processes(tmp_path: Path) -> None:
    program = 'echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS $3" >>$TMPDIR/out'
    assert run_locally(tmp_path, program).returncode == 0
    lines = sorted((tmp_path / "out").read_text().split("\n"))[1:]
    assert [line.split()[0] for line in lines] == ["0/2", "1/2"]
    assert {line.split()[2] for line in lines} == {"--config=FILE"}
    assert len({line.split()[1] for line in lines}) == 1
