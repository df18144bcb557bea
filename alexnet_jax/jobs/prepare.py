"""Job prepare: writes images of any layout as one dataset of one size, with its statistics."""

import dataclasses
import logging
import os
import shlex
from pathlib import Path

from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.images import later_resize
from alexnet_jax.experiment import data_options
from alexnet_jax.prepare.dataset import REPORT, prepare
from alexnet_jax.prepare.inputs import InputOptions, open_inputs
from alexnet_jax.prepare.shards import ImageFormat, PrepareOptions
from alexnet_jax.runtime.progress import Progress

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Prepares the dataset that the config's section `prepare` describes, or resumes it.

    Raises:
      InputError: the inputs or the output folder cannot be used.
    """
    config, keys = command.config, command.config.prepare
    resize = keys.resize or config.data.resize
    of_input = {"source": keys.input, "root": keys.root, "resize": later_resize(resize)}
    data = dataclasses.replace(data_options(config), **of_input)
    given = {name: keys[name] for name in InputOptions._fields if name != "data"}
    with console.status("Listing the images ..."):
        inputs = open_inputs(InputOptions(data, **given))
    output, processes = Path(keys.output).expanduser(), keys.processes or os.cpu_count() or 1
    stored = ImageFormat(data.image_size, data.channels, resize, keys.format, keys.quality)
    with Progress(console, f"images prepared in {output}:") as progress:
        limits = keys.shard_size, processes, keys.max_unreadable
        report = prepare(inputs, PrepareOptions(stored, output, *limits, progress.advance))
    for warning in report.warnings:
        _log.warning("%s", warning)
    if report.unreadable:
        _log.warning(
            "%d unreadable images, such as %s (%s); see %s.",
            *(len(report.unreadable), *report.unreadable[0], output / REPORT),
        )
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    classes = len(next(iter(inputs.values())).class_names)
    flags = f"--config.data.source=prepared --config.data.root={shlex.quote(str(output))}"
    if data.resize != "crop":
        flags += f" --config.data.resize={data.resize}"
    one, *others = report.counts
    if not others:  # divided for training and evaluation
        flags += f" --config.data.train_split='{one}[:90%]' --config.data.eval_split='{one}[90%:]'"
    console.print(f"{output}: {counts} images of {classes:,} classes. To train on them: {flags}")
