"""Job prepare: writes images of any layout as one dataset of one size, with its statistics."""

import logging
import os
import shlex
from pathlib import Path

from rich.console import Console

from alexnet_jax.config.command_line import Command
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
    config, data, keys = command.config, command.config.data, command.config.prepare
    given = {name: keys[name] for name in InputOptions._fields if name != "data"}
    with console.status("Listing the images ..."):
        inputs = open_inputs(InputOptions(**given, data=data_options(config)))
    output = Path(keys.output).expanduser()
    options = PrepareOptions(
        ImageFormat(data.image_size, data.channels, keys.resize, keys.format, keys.quality),
        output,
        keys.shard_size,
        keys.processes or os.cpu_count() or 1,
        keys.max_unreadable,
    )
    with Progress(console, f"images prepared in {output}:") as progress:
        report = prepare(inputs, options, progress.advance)
    for warning in report.warnings:
        _log.warning("%s", warning)
    if report.unreadable:
        name, reason = report.unreadable[0]
        count, path = len(report.unreadable), output / REPORT
        _log.warning("%d unreadable images, such as %s (%s); see %s.", count, name, reason, path)
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    num_classes = len(next(iter(inputs.values())).class_names)
    flags = f"--config.data.source=prepared --config.data.root={shlex.quote(str(output))}"
    if len(report.counts) == 1:  # divided for training and evaluation
        (split,) = report.counts
        flags += f" --config.data.train_split='{split}[:90%]'"
        flags += f" --config.data.eval_split='{split}[90%:]'"
    console.print(
        f"{output}: {counts} images of {num_classes:,} classes. To train on them: {flags}"
    )
