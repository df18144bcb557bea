"""Job plan: what a run would take on devices that are not here, an estimate."""

import dataclasses
import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from alexnet_jax.config.command_line import Command
from alexnet_jax.experiment import Experiment
from alexnet_jax.jobs.summary import IMAGENET_CLASSES
from alexnet_jax.parallel.estimate import DEVICES, GIB, Device, Estimate, Work, estimate, work_of
from alexnet_jax.parallel.measured_cpu import measure_cpu

_EXPLANATION = {
    True: (
        "An estimate, not a measurement: the compiler's count of a step's work, in the program "
        "for CPUs, over the peak rates of the data sheets. No kernel reaches them; AlexNet's "
        "small layers least of all. Reading pictures is not counted."
    ),
    False: (
        "An estimate: the compiler's count of a step's work over this CPU's rates, measured now "
        "with one convolution and one addition. Reading pictures is not counted."
    ),
}


def run(command: Command, console: Console) -> None:
    """Compiles the config's step for as many devices and prints what it asks of each.

    Needs no data. The last line is the same as JSON. Without model.num_classes the net has
    ImageNet's 1000.
    """
    config = command.config
    classes = config.model.num_classes or IMAGENET_CLASSES
    experiment = Experiment.from_config(config, classes, config.estimate.examples)
    parts = experiment.mesh.size
    with console.status("Compiling the train step ..."):
        work = train_step_work(experiment)
    if config.estimate.device == "measured_cpu":
        with console.status("Measuring this CPU ..."):
            device = measure_cpu(parts)
    else:
        device = DEVICES[config.estimate.device]
    times = estimate(work, device, config.model.dtype or "float32")
    told = summary(config.to_dict(), experiment.batch_size, parts, work, device, times)
    title = f"{config.model.name}, {config.parallel.strategy} on {parts} x {device.name}"
    console.print(_table(told, title))
    if work.memory > device.memory:
        console.print("The memory does not suffice: take more devices, a smaller batch, "
                      "train.accumulate or model.dtype='bfloat16'.")  # fmt: skip
    console.print(_EXPLANATION[device.overlaps])
    print(json.dumps(told))


def train_step_work(experiment: Experiment) -> Work:
    """Returns what a train step asks of each device."""
    layout = dataclasses.replace(experiment.layout, unrolled=True)
    countable = dataclasses.replace(experiment, layout=layout)
    return work_of(countable.compile_train_step(countable.abstract_state()))


def summary(
    config: dict[str, Any], batch: int, devices: int, work: Work, device: Device, times: Estimate
) -> dict[str, Any]:
    """Returns the plan as plain values; work and memory are those of one device.

    Args:
      config: the full tree; reads plan, parallel and model.
      batch: pictures of a step over all devices.
      devices: how many.
      work: of a step on one of them.
      device: what they are.
      times: the estimate.
    """
    keys = config["estimate"]
    rate = batch / times.step
    return {
        "model": config["model"]["name"],
        "strategy": config["parallel"]["strategy"],
        "device": device.name,
        "devices": devices,
        "batch_size": batch,
        "flops": work.flops,
        "memory_bytes_moved": work.bytes,
        "bytes_sent": work.sent,
        "memory_bytes": work.memory,
        "device_memory_bytes": device.memory,
        "seconds": dataclasses.asdict(times),
        "images_per_second": rate,
        "epochs": keys["epochs"],
        "examples": keys["examples"],
        "hours": keys["epochs"] * keys["examples"] / rate / 3600,
    }


def _table(told: dict[str, Any], title: str) -> Table:
    seconds, giga = told["seconds"], 1e9
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE, show_edge=False, show_header=False
    )
    table.add_column("what")
    table.add_column("amount", justify="right")
    table.add_column("time", justify="right")

    def row(what: str, amount: str, time: float | None = None) -> None:
        table.add_row(what, amount, "" if time is None else f"{1000 * time:,.3f} ms")

    row(
        "arithmetic of a device and step",
        f"{told['flops'] / giga:,.1f} GFLOP",
        seconds["arithmetic"],
    )
    row(
        "read and written in its memory",
        f"{told['memory_bytes_moved'] / giga:,.2f} GB",
        seconds["memory"],
    )
    row("sent to others", f"{told['bytes_sent'] / giga:,.3f} GB", seconds["links"])
    held = f"{told['memory_bytes'] / GIB:,.2f} of {told['device_memory_bytes'] / GIB:,.0f} GiB"
    row("memory of a device", held)
    row(f"a step of {told['batch_size']:,} pictures", "", seconds["step"])
    row("images a second, all devices", f"{told['images_per_second']:,.0f}")
    row(f"hours for {told['epochs']} epochs of {told['examples']:,}", f"{told['hours']:,.2f}")
    return table
