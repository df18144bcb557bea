"""Four CPU devices for every test, and one cache of compiled programs for the whole session."""

import os
from collections.abc import Callable

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 4)
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
