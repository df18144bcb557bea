"""Job estimate: what a run would take on devices that are not available."""

import dataclasses
import json
from typing import Any

from ml_collections import ConfigDict
from rich import box
from rich.console import Console
from rich.table import Column, Table

from alexnet_jax.config.command_line import Command
from alexnet_jax.experiment import Experiment
from alexnet_jax.jobs.summary import IMAGENET_CLASSES
from alexnet_jax.parallel.estimate import DEVICES, GIB, Device, Work, estimate, measure_cpu, work_of

_DATA_SHEETS = (
    "An estimate, not a measurement: the compiler's count of a step's work, in the program for "
    "CPUs, over the peak rates of the data sheets. No kernel reaches them, those of AlexNet's "
    "small layers least of all. Reading images is not included."
)
_MEASURED_CPU = (
    "An estimate: the compiler's count of a step's work over this CPU's rates, measured now with "
    "one convolution and one addition. Reading images is not included."
)


def run(command: Command, console: Console) -> None:
    """Compiles the train step for the requested devices and prints what it requires of each.

    Needs no data. The last line is the same as JSON. Without model.num_classes the model has
    ImageNet's 1000.
    """
    config = command.config
    classes = config.model.num_classes or IMAGENET_CLASSES
    experiment = Experiment.from_config(config, classes, config.estimate.examples)
    with console.status("Compiling the train step ..."):
        work = train_step_work(experiment)
    device, note = DEVICES.get(config.estimate.device), _DATA_SHEETS
    if device is None:  # measured_cpu
        with console.status("Measuring this CPU ..."):
            device, note = measure_cpu(experiment.mesh.size), _MEASURED_CPU
    result = summarize(config, experiment.mesh.size, work, device)
    console.print(_table(result))
    if work.memory_bytes > device.memory:
        console.print(
            "Not enough memory: use more devices, a smaller batch, train.accumulate or "
            "model.dtype='bfloat16'."
        )
    console.print(note)
    print(json.dumps(result))


def train_step_work(experiment: Experiment) -> Work:
    """Returns what a train step requires of each device."""
    layout = experiment.layout._replace(unrolled=True)
    countable = dataclasses.replace(experiment, layout=layout)
    return work_of(countable.compile_train_step(countable.abstract_state()))


def summarize(config: ConfigDict, num_devices: int, work: Work, device: Device) -> dict[str, Any]:
    """Returns the estimate as plain values; work and memory are those of one device.

    Args:
      config: the full tree.
      num_devices: number of devices.
      work: of a step on one of them.
      device: their performance.
    """
    times = estimate(work, device, config.model.dtype or "float32")
    images_per_second = config.train.batch_size / times["step"]
    return {
        **config.estimate,
        "model": config.model.name,
        "strategy": config.parallel.strategy,
        "device": device.name,
        "devices": num_devices,
        "batch_size": config.train.batch_size,
        **work._asdict(),
        "device_memory_bytes": device.memory,
        "seconds": times,
        "images_per_second": images_per_second,
        "hours": config.estimate.epochs * config.estimate.examples / images_per_second / 3600,
    }


def _table(result: dict[str, Any]) -> Table:
    seconds, memory = result["seconds"], result["device_memory_bytes"] / GIB
    title = "{model}, {strategy} on {devices} x {device}".format(**result)
    style: dict[str, Any] = {"box": box.SIMPLE, "show_edge": False, "show_header": False}
    columns = (Column(), Column(justify="right"), Column(justify="right"))
    table = Table(*columns, title=title, title_justify="left", **style)
    hours = f"hours for {result['epochs']} epochs of {result['examples']:,}"
    for quantity, amount, time in (
        ("arithmetic per device and step", f"{result['flops'] / 1e9:,.1f} GFLOP", "arithmetic"),
        ("memory traffic", f"{result['memory_bytes_moved'] / 1e9:,.2f} GB", "memory"),
        ("sent to other devices", f"{result['bytes_sent'] / 1e9:,.3f} GB", "links"),
        ("memory held", f"{result['memory_bytes'] / GIB:,.2f} of {memory:,.0f} GiB", None),
        (f"step of {result['batch_size']:,} images", "", "step"),
        ("images/s on all devices", f"{result['images_per_second']:,.0f}", None),
        (hours, f"{result['hours']:,.2f}", None),
    ):
        table.add_row(quantity, amount, f"{1000 * seconds[time]:,.3f} ms" if time else "")
    return table
