"""Rules of the architecture: imports run one way, functions stay short."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "alexnet_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each package with those it may import, from the bottom up.
GROUND = {"durations", "errors", "schema"}
ALLOWED = {
    "durations": set(),
    "errors": set(),
    "schema": {"errors"},
    "config": GROUND
    | {"data", "evaluation", "models", "parallel", "prepare", "training", "weights"},
    "runtime": GROUND,
    "ops": GROUND,
    "models": GROUND | {"ops"},
    "data": GROUND | {"runtime"},
    "preprocessing": GROUND,
    "prepare": GROUND | {"data", "runtime"},
    "parallel": GROUND | {"ops", "models", "data"},
    "training": GROUND | {"runtime", "models", "data", "preprocessing", "parallel", "weights"},
    "evaluation": GROUND | {"models", "data", "preprocessing", "parallel", "training"},
    "plots": GROUND | {"runtime"},
    "experiment": GROUND | {"config", "models", "data", "preprocessing", "parallel", "training"},
    "weights": GROUND | {"data", "models", "runtime"},
    "trained_model": GROUND
    | {"config", "data", "evaluation", "models", "parallel", "preprocessing", "training"}
    | {"weights", "experiment"},
    "reports": GROUND
    | {"data", "evaluation", "plots", "runtime", "experiment", "trained_model", "training"},
}
ALLOWED["jobs"] = set(ALLOWED)
ALLOWED["__main__"] = {"main"}
ALLOWED["main"] = {"config", "errors", "jobs", "parallel", "runtime"}


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "alexnet_jax":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alexnet_jax."):
            yield str(node.module).split(".")[1]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("alexnet_jax."):
                    yield alias.name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    package = package_of(path)
    if package == "__init__":
        return
    assert set(imported_packages(path)) - {package} <= ALLOWED[package]


def test_no_package_imports_itself_through_another() -> None:
    def reachable(package: str, seen: frozenset[str]) -> set[str]:
        assert package not in seen, f"{package} is in an import cycle"
        below: set[str] = set()
        for lower in ALLOWED[package] - {package}:
            below |= {lower} | reachable(lower, seen | {package})
        return below

    for package in ALLOWED:
        assert package not in reachable(package, frozenset())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"


def test_main_is_short() -> None:
    assert len((PACKAGE / "main.py").read_text().splitlines()) <= 80


def test_configs_are_short() -> None:
    for path in (PACKAGE.parent / "configs").glob("*.py"):
        code = ast.parse(path.read_text())
        statements = path.read_text().splitlines()[code.body[0].end_lineno :]
        assert len([line for line in statements if line.strip()]) <= 40, path.name


def test_importing_the_package_imports_nothing_heavy() -> None:
    program = "import sys, alexnet_jax; print('jax' in sys.modules, 'flax' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["False", "False"]


def test_training_imports_nothing_of_preparing() -> None:
    program = "import sys, alexnet_jax.training, alexnet_jax.jobs.train; print(*sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(output.stdout.split())
    assert "alexnet_jax.training.checkpoint" in loaded
    assert "alexnet_jax.data.prepared" not in loaded  # nor the reader of prepared datasets
    assert not [name for name in loaded if name.startswith("alexnet_jax.prepare.")]


def test_only_prepare_writes_array_record() -> None:
    found = [path.parent.name for path in FILES if "ArrayRecordWriter" in path.read_text()]
    assert found == ["prepare"]
