"""The code on docs/python.md runs as it stands, and does what the page says."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from weight_files import write_torchvision

import alexnet_jax

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs" / "python.md").read_text(), re.M | re.S
)


@pytest.fixture
def place(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page uses; the weight file is a narrow AlexNet for ImageNet."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    shutil.copytree(finished_run, tmp_path / "runs" / "quickstart")
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("cat", (300, 200)), ("dog", (120, 260))):
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.jpg")
    write_torchvision(tmp_path / "alexnet-owt-7be5be79.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "%" in capsys.readouterr().out
    assert names["model"].class_names == tuple("0123456789")
    assert names["name"].startswith("n0")
    assert 0 < names["probability"] < 1
    shapes = {
        "probabilities": (2, 1000),
        "logits": (1, 1000),
        "features": (2, 16),
        "maps": (2, 13, 13, 8),
        "pixels": (2, 256, 256, 3),
        "kernel": (5, 5, 1, 32),
    }
    assert {name: names[name].shape for name in shapes} == shapes
    assert names["heat_map"].shape[0::3] == (1, 1000)
    assert names["code"] == 0
    assert (place / "runs" / "quickstart" / "evaluation.json").exists()
    losses = names["losses"]
    assert losses[0] == pytest.approx(np.log(10), rel=0.05)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]
    assert list(names["class_names"]) == [str(digit) for digit in range(10)]
    assert names["config"] == json.loads(Path("runs/quickstart/config.json").read_text())


def test_orbax_alone_restores_a_checkpoint(place: Path) -> None:
    """In a process that cannot import this package."""
    (block,) = (block for block in BLOCKS if "import orbax" in block)
    program = (
        f"import sys; sys.modules['alexnet_jax'] = None\n{block}\nprint(kernel.sum(), tree['step'])"
    )
    args = [sys.executable, "-c", program]
    total, step = subprocess.run(args, capture_output=True, text=True, check=True).stdout.split()
    kernel = alexnet_jax.load("runs/quickstart", step).params["conv1"]["kernel"]
    assert float(total) == pytest.approx(float(kernel.sum()), rel=1e-4)


def test_the_table_of_the_tree_has_all_of_it(finished_run: Path) -> None:
    (checkpoint, *_) = (finished_run / "checkpoints").iterdir()
    arrays = json.loads((checkpoint / "metadata" / "metadata").read_text())["arrays"]
    text = (ROOT / "docs" / "python.md").read_text()
    for part in {name.partition("/")[0] for name in arrays}:
        assert f"`{part}" in text
