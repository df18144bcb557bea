"""The package as users import and start it."""

import os
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import jax.numpy as jnp
import pytest

import alexnet_jax
from alexnet_jax.main import main
from alexnet_jax.models.variants import VARIANTS

ROOT = Path(__file__).parents[1]
SUMMARY = [f"--config={ROOT}/configs/quickstart.py", "--config.job=summary"]


def test_the_public_names() -> None:
    assert {"create_model", "list_models", "load", "local_response_norm"} <= set(dir(alexnet_jax))
    assert alexnet_jax.list_models() == list(VARIANTS)
    ones = jnp.ones((1, 1, 1, 1))  # 1 / (k + alpha)^beta
    assert float(alexnet_jax.local_response_norm(ones, k=2.0)[0, 0, 0, 0]) == pytest.approx(
        (2 + 1e-4) ** -0.75
    )
    with pytest.raises(AttributeError, match="lode"):
        alexnet_jax.lode  # noqa: B018


def test_the_package_is_typed_and_has_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "alexnet_jax.__version__"
    assert (Path(alexnet_jax.__file__).parent / "py.typed").exists()
    assert alexnet_jax.__version__.count(".") == 2


def test_a_wheel_contains_all_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["alexnet_jax"]
    package = Path(alexnet_jax.__file__).parent
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    files = {path for path in package.rglob("*.*") if path.is_file()}
    assert {path for path in files - packed if path.suffix not in (".py", ".pyc")} == set()


def test_main_takes_arguments_without_the_program_and_runs_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(SUMMARY)))
    thread.start()
    thread.join()
    monkeypatch.setattr(sys, "argv", ["alexnet_jax", "--nothing"])
    codes += [main([*SUMMARY[:1], "--nothing"]), main()]
    assert codes == [0, 2, 2]


def test_the_output_may_be_closed_early() -> None:
    """As `| head` does: the reader is gone before the first line."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-W", "error", "-m", "alexnet_jax", "--help"]
    process = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (process.returncode, process.stderr) == (0, "")
