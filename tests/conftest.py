"""Four CPU devices for every test, and one cache of compiled programs for the whole session."""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from absl import flags

ROOT = Path(__file__).parents[1]

jax.config.update("jax_num_cpu_devices", 4)
jax.devices()  # from here on their number stands, whatever a config asks for
flags.FLAGS.mark_as_parsed()  # Grain asks absl for its flags


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def run_main(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the program in this process: words -> (exit code, standard output, standard error)."""
    from alexnet_jax.main import main

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["alexnet_jax", *words])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return run


SHORT_QUICKSTART = (
    f"--config={ROOT}/configs/quickstart.py",
    "--config.augment.mean=channel",
    "--config.data.eval_split=val[:137]",
    "--config.train.duration=4 steps",
    "--config.train.log_every=2 steps",
)


@pytest.fixture(scope="session")
def short_quickstart() -> tuple[str, ...]:
    """The command of a run of four steps: compiled once in a session."""
    return SHORT_QUICKSTART


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of that run, done. Copy it before changing it."""
    from alexnet_jax.main import main

    workdir = tmp_path_factory.mktemp("finished") / "run"
    assert main(["alexnet_jax", *SHORT_QUICKSTART, f"--workdir={workdir}"]) == 0
    return workdir
