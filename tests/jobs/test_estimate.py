"""Job estimate: its numbers follow from the program compiled for that mesh."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexnet_jax.models.summary import layer_table
from alexnet_jax.models.variants import VARIANTS
from alexnet_jax.parallel.estimate import DEVICES, Device

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}"
Run = Callable[..., tuple[int, str, str]]


def estimate(run_main: Run, *options: str) -> tuple[dict[str, Any], str]:
    """Returns the last line, JSON, and the text before it."""
    options = ("job=estimate", "model.num_classes=10", "train.batch_size=20", *options)
    code, out, err = run_main(CONFIG, *(f"--config.{option}" for option in options))
    assert code == 0, err
    *text, last = out.strip().splitlines()
    return json.loads(last), "\n".join(text)


def test_the_work_is_that_of_the_model(run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = Device("this CPU", {"float32": 1e11}, 1e10, 1e10, 1e9, overlaps=False)
    monkeypatch.setattr("alexnet_jax.jobs.estimate.measure_cpu", lambda parts: cpu)
    result, _ = estimate(
        run_main, "parallel.strategy=single", "estimate.epochs=3", "estimate.examples=7200"
    )
    macs = sum(row.macs for row in layer_table(VARIANTS["digits"], num_classes=10))
    training = 3 * 2 * macs * result["batch_size"]  # forward, and a gradient of each factor
    assert 0.7 * training < result["flops"] < 1.3 * training
    assert result["bytes_sent"] == 0
    assert result["devices"] == 1
    seconds = result["seconds"]
    assert seconds["step"] == pytest.approx(seconds["arithmetic"] + seconds["memory"])
    assert result["images_per_second"] == pytest.approx(result["batch_size"] / seconds["step"])
    assert result["hours"] == pytest.approx(3 * 7200 / result["images_per_second"] / 3600)


@pytest.mark.slow
def test_two_gpus_share_the_work(run_main: Run) -> None:
    one, _ = estimate(run_main, "parallel.devices=1", "estimate.device=a100")
    two, text = estimate(run_main, "parallel.devices=2", "estimate.device=a100")
    assert two["flops"] == pytest.approx(one["flops"] / 2, rel=0.1)
    assert two["bytes_sent"] > 0
    gpu, seconds = DEVICES["a100"], two["seconds"]
    assert seconds["arithmetic"] == two["flops"] / gpu.flops["float32"]
    assert seconds["memory"] == two["memory_bytes_moved"] / gpu.bandwidth
    assert seconds["links"] == two["bytes_sent"] / gpu.link
    assert "2 x NVIDIA A100" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["train.accumulate=5"], ["parallel.strategy=stage", "parallel.micro_batches=5"]],
    ids=["accumulate", "stage"],
)
def test_loops_count_as_often_as_they_run(options: list[str], run_main: Run) -> None:
    """A stage has nearly all the work: the convolutions, in six ticks for five parts."""
    one, _ = estimate(run_main, "parallel.strategy=single")
    devices = () if "train.accumulate=5" in options else ("parallel.devices=2",)
    parts, _ = estimate(run_main, "parallel.strategy=single", *devices, *options)
    assert 0.8 * one["flops"] < parts["flops"] < 1.4 * one["flops"]


@pytest.mark.slow
def test_too_little_memory_is_reported(run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    small = DEVICES["tpu_v5e"]._replace(memory=1e6)
    monkeypatch.setitem(DEVICES, "tpu_v5e", small)
    result, text = estimate(run_main, "parallel.devices=1", "estimate.device=tpu_v5e")
    assert result["memory_bytes"] > result["device_memory_bytes"]
    assert "train.accumulate" in text


def test_the_number_of_devices_must_be_set(run_main: Run) -> None:
    code, _, err = run_main(CONFIG, "--config.job=estimate", "--config.estimate.device=h100")
    assert code == 2
    assert "parallel.devices" in err
