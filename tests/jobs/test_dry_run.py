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
    """Returns that of the digits model as Flax makes it, not as the layer table counts it."""
    model = alexnet_jax.create_model("digits", num_classes=10)
    side = model.spec.input_size
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    return sum(math.prod(array.shape) for array in jax.tree.leaves(variables["params"]))


def test_the_whole_plan_is_printed_and_nothing_is_written(
    run_main: RunMain, short_quickstart: tuple[str, ...], tmp_path: Path
) -> None:
    args = (*short_quickstart, f"--workdir={tmp_path}/run", "--dry_run")
    code, output, errors = run_main(*args)
    assert (code, errors) == (0, "")
    assert list(tmp_path.iterdir()) == []

    config, end = json.JSONDecoder().raw_decode(output)
    parsed = command_line.parse(args).config.to_dict()
    assert config == json.loads(json.dumps(parsed))
    text = output[end:]
    parameters = number_of_parameters()
    for line in (
        f" {parameters:,} ",
        "4,000 training images of 10 classes, 100 per step, 40.0 steps per epoch\n",
        "4 steps; a log line every 2, an evaluation every 4, a checkpoint every 3 steps\n",
        # 250-fold over four stages: 250^(1/3) = 6.2996 per stage
        "rate of weights ('kernel'): 0.01 from step 0, 0.0015874 from step 1, 0.000251984 from ",
        "devices: {'data': 1, 'tower': 1}\n",
        "first batch, images: uint8[100, 28, 28, 1]\n",
        "first batch, labels: int32[100]\n",
        "first batch, mask: float32[100]\n",
        "first batch, stream_position: uint32[100]\n",
    ):
        assert line in text
    assert "rate of norms" not in text  # the model has none
    memory = re.search(r"memory of a step on each device.*: (\d+) MiB state .* (\d+) MiB", text)
    assert memory
    state, activations = map(int, memory.groups())
    # parameters and velocities of 4 bytes, images of 1
    assert state == round((2 * 4 * parameters + 100 * 28 * 28) / 2**20)
    assert 1 < activations < 1000


@pytest.mark.parametrize(
    ("override", "named"),
    [("model.num_classes=5", "model.num_classes"), ("data.eval_split=vale", "vale")],
)
def test_an_error_of_the_run_is_all_that_is_printed(
    run_main: RunMain, short_quickstart: tuple[str, ...], override: str, named: str
) -> None:
    code, output, errors = run_main(*short_quickstart, "--dry_run", f"--config.{override}")
    assert (code, output) == (2, "")
    assert named in errors
