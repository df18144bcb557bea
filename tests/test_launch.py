"""The launchers: what can be told of them without their clusters."""

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
def test_scripts_are_understood_and_say_how_to_use_them(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK) or script.suffix == ".sbatch"
    assert f"launch/{script.name}" in script.read_text()


@pytest.mark.parametrize("name", ["local.sh", "tpu_vm.sh"])
def test_without_words_the_use_is_told(name: str) -> None:
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
    told = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(told["JAX_NUM_PROCESSES"]) == job["spec"]["completions"]
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    # pod 0 of the job, below the service's name, at the service's port
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    assert told["JAX_COORDINATOR_ADDRESS"] == f"{job['metadata']['name']}-0.{name}:{port}"
    assert job["spec"]["template"]["spec"]["subdomain"] == name


def test_local_runs_processes_and_tells_their_exit_code(tmp_path: Path) -> None:
    """A mistake in the config: told by process 0, and no process left waiting."""
    process = subprocess.run(
        [
            *(LAUNCH / "local.sh", "2", "--config=configs/quickstart.py"),
            *(f"--workdir={tmp_path / 'run'}", "--config.train.batch_size=21"),
        ],
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert process.returncode == 2
    assert "21 does not divide by the 2 devices" in process.stderr
    assert not (tmp_path / "run").exists()
