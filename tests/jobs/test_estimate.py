"""Job plan: its numbers follow from the program compiled for that mesh, and from no other."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.config.defaults import SCHEMA
from alexnet_jax.models.summary import layer_table
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.parallel.estimate import DEVICES

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}"
Run = Callable[..., tuple[int, str, str]]


def plan(run_main: Run, *words: str) -> tuple[dict[str, Any], str]:
    """Returns the last line, JSON, and what came before it."""
    words = ("job=estimate", "model.num_classes=10", "train.batch_size=20", *words)
    code, out, err = run_main(CONFIG, *(f"--config.{word}" for word in words))
    assert code == 0, err
    *told, last = out.strip().splitlines()
    return json.loads(last), "\n".join(told)


def test_the_work_is_that_of_the_net(run_main: Run) -> None:
    told, _ = plan(
        run_main, "parallel.strategy=single", "estimate.epochs=3", "estimate.examples=7200"
    )
    macs = sum(row.macs for row in layer_table(VARIANTS["digits"], num_classes=10))
    training = 3 * 2 * macs * told["batch_size"]  # forward, and a gradient of each factor
    assert 0.7 * training < told["flops"] < 1.3 * training
    assert told["bytes_sent"] == 0
    assert told["devices"] == 1
    seconds = told["seconds"]
    assert seconds["step"] == pytest.approx(seconds["arithmetic"] + seconds["memory"])
    assert told["images_per_second"] == pytest.approx(told["batch_size"] / seconds["step"])
    assert told["hours"] == pytest.approx(3 * 7200 / told["images_per_second"] / 3600)


def test_two_gpus_share_the_work(run_main: Run) -> None:
    one, _ = plan(run_main, "parallel.devices=1", "estimate.device=a100")
    two, text = plan(run_main, "parallel.devices=2", "estimate.device=a100")
    assert two["flops"] == pytest.approx(one["flops"] / 2, rel=0.1)
    assert two["bytes_sent"] > 0
    gpu, seconds = DEVICES["a100"], two["seconds"]
    assert seconds["arithmetic"] == two["flops"] / gpu.flops["float32"]
    assert seconds["memory"] == two["memory_bytes_moved"] / gpu.bandwidth
    assert seconds["links"] == two["bytes_sent"] / gpu.link
    assert "2 x NVIDIA A100" in text
    assert "An estimate, not a measurement" in text


@pytest.mark.parametrize(
    "words",
    [
        ["parallel.strategy=single", "train.accumulate=5"],
        ["parallel.devices=2", "parallel.strategy=stage", "parallel.micro_batches=5"],
    ],
    ids=["accumulate", "stage"],
)
def test_loops_count_as_often_as_they_run(words: list[str], run_main: Run) -> None:
    """A stage has nearly all the work: the convolutions, in six ticks for five parts."""
    one, _ = plan(run_main, "parallel.strategy=single")
    parts, _ = plan(run_main, *words)
    assert 0.8 * one["flops"] < parts["flops"] < 1.4 * one["flops"]


def test_too_little_memory_is_told(run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small = dataclasses.replace(DEVICES["tpu_v5e"], memory=1e6)
    monkeypatch.setitem(DEVICES, "tpu_v5e", small)
    told, text = plan(run_main, "parallel.devices=1", "estimate.device=tpu_v5e")
    assert told["memory_bytes"] > told["device_memory_bytes"]
    assert "The memory does not suffice" in text


def test_how_many_devices_must_be_said(run_main: Run) -> None:
    code, _, err = run_main(CONFIG, "--config.job=estimate", "--config.estimate.device=h100")
    assert code == 2
    assert "parallel.devices:" in err


def test_the_choices_are_the_devices_known() -> None:
    assert set(SCHEMA["estimate"]["device"].choices) == {"measured_cpu", *DEVICES}
