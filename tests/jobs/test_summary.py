import json
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet_jax.models import variants

ROOT = Path(__file__).parents[2]
RunMain = Callable[..., tuple[int, str, str]]

# The layers of the paper's model, counted by hand: output, weights, biases, multiply-adds.
PAPER = [
    ("conv1", [55, 55, 96], 34_848, 96, 105_415_200),
    ("pool1", [27, 27, 96], 0, 0, 0),
    ("conv2", [27, 27, 256], 307_200, 256, 223_948_800),
    ("pool2", [13, 13, 256], 0, 0, 0),
    ("conv3", [13, 13, 384], 884_736, 384, 149_520_384),
    ("conv4", [13, 13, 384], 663_552, 384, 112_140_288),
    ("conv5", [13, 13, 256], 442_368, 256, 74_760_192),
    ("pool5", [6, 6, 256], 0, 0, 0),
    ("fc6", [4096], 37_748_736, 4_096, 37_748_736),
    ("fc7", [4096], 16_777_216, 4_096, 16_777_216),
    ("fc8", [1000], 4_096_000, 1_000, 4_096_000),
]


@pytest.mark.parametrize("config", ["paper.py", "paper.py:text"])
def test_the_papers_layers_as_text_and_as_json(
    run_main: RunMain, tmp_path: Path, config: str
) -> None:
    """Needs no ImageNet, and leaves nothing behind."""
    code, output, errors = run_main(
        f"--config={ROOT}/configs/{config}", "--config.job=summary", f"--workdir={tmp_path}/run"
    )
    assert (code, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []
    *text, last = output.splitlines()
    summary = json.loads(last)
    assert summary["input"] == [224, 224, 3]
    assert [
        (row["name"], row["output"], row["weights"], row["biases"], row["macs"])
        for row in summary["layers"]
    ] == PAPER
    assert all(row["parameters"] == row["weights"] + row["biases"] for row in summary["layers"])
    assert (summary["parameters"], summary["macs"]) == (60_965_224, 724_406_816)
    assert (summary["weights"], summary["biases"]) == (60_954_656, 10_568)

    cells = {line.split()[0]: f"{line} " for line in text if line.strip()}
    for name, output_shape, weights, biases, macs in PAPER:
        numbers = [f"{number:,}" for number in (weights, biases, weights + biases, macs) if number]
        for cell in [" x ".join(map(str, output_shape)), *numbers]:
            assert f" {cell} " in cells[name]
    assert " 60,965,224 " in cells["total"]
    assert " 724,406,816 " in cells["total"]


def test_the_config_sets_the_number_of_classes(run_main: RunMain) -> None:
    code, output, _ = run_main(
        f"--config={ROOT}/configs/paper.py",
        "--config.job=summary",
        "--config.model.num_classes=10",
    )
    summary = json.loads(output.splitlines()[-1])
    assert code == 0
    assert summary["layers"][-1] == {
        "name": "fc8",
        "output": [10],
        "weights": 40_960,
        "biases": 10,
        "parameters": 40_970,
        "macs": 40_960,
        "receptive_field": None,
    }
    assert summary["parameters"] == 60_965_224 - 990 * 4097


@pytest.mark.parametrize("name", variants.VARIANTS)
def test_every_model_has_its_table_under_the_papers_config(run_main: RunMain, name: str) -> None:
    """The numbers themselves are tests/models/test_summary.py's; a grayscale model is no error."""
    code, output, errors = run_main(
        f"--config={ROOT}/configs/paper.py", f"--config.model.name={name}", "--config.job=summary"
    )
    assert (code, errors) == (0, "")
    summary = json.loads(output.splitlines()[-1])
    assert summary["input"][0] == variants.VARIANTS[name].input_size
    assert summary["parameters"] == sum(row["parameters"] for row in summary["layers"])
    assert output.splitlines()[0].startswith(f"{name}: ")


def test_options_and_another_image_size_change_the_table(run_main: RunMain) -> None:
    options = ("fully_convolutional=True", "input_size=384", "remove_layer=conv4")
    _, output, _ = run_main(
        f"--config={ROOT}/configs/paper.py",
        "--config.job=summary",
        *(f"--config.model.{option}" for option in options),
    )
    summary = json.loads(output.splitlines()[-1])
    assert summary["layers"][-1]["output"] == [6, 6, 1000]
    assert summary["parameters"] == 60_965_224 - 663_936  # conv4's
