import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import alexnet_jax
from alexnet_jax.config import command_line

RunMain = Callable[..., tuple[int, str, str]]


def number_of_parameters() -> int:
    """Of the digits' net as Flax makes it, not as the layer table counts it."""
    model = alexnet_jax.create_model("digits", num_classes=10)
    side = model.spec.input_size
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    return sum(math.prod(array.shape) for array in jax.tree.leaves(variables["params"]))


def test_everything_is_told_and_nothing_done(
    run_main: RunMain, short_quickstart: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*short_quickstart, f"--workdir={tmp_path}/run", "--dry_run")
    code, output, errors = run_main(*words)
    assert (code, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []

    config, end = json.JSONDecoder().raw_decode(output)
    parsed = command_line.parse(words).config.to_dict()
    assert config == json.loads(json.dumps(parsed))
    text = output[end:]
    parameters = number_of_parameters()
    for word in (
        f" {parameters:,} ",
        "4,000 training images of 10 classes, 100 per step, 40.0 steps per epoch\n",
        "4 steps; a log line every 2, an evaluation every 4, a checkpoint every 3 steps\n",
        # 250-fold in all over four levels: 250^(1/3) = 6.2996 a level
        "rate of weights (/kernel/): 0.01 from step 0, 0.0015874 from step 1, 0.000251984 from ",
        "devices: {'data': 1, 'tower': 1}\n",
        "first batch, images: uint8[100, 28, 28, 1]\n",
        "first batch, labels: int32[100]\n",
        "first batch, mask: float32[100]\n",
        "first batch, stream_position: uint32[100]\n",
    ):
        assert word in text
    memory = re.search(r"memory of a step on each device.*: (\d+) MiB state .* (\d+) MiB", text)
    assert memory
    state, activations = map(int, memory.groups())
    # parameters and velocities of 4 bytes, pictures of 1
    assert state == round((2 * 4 * parameters + 100 * 28 * 28) / 2**20)
    assert 1 < activations < 1000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.num_classes=5", "model.num_classes"),
        ("data.eval_split=vale", "The digits have no split 'vale'"),
    ],
)
def test_what_would_stop_the_run_stops_the_dry_one(
    run_main: RunMain, short_quickstart: tuple[str, ...], override: str, message: str
) -> None:
    code, _, errors = run_main(*short_quickstart, "--dry_run", f"--config.{override}")
    assert code == 2
    assert message in errors
