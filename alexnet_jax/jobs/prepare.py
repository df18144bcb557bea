"""Job prepare: from images of any layout to one dataset of one size, with its statistics."""

import dataclasses
import logging
import os
import shlex
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.experiment import data_options
from alexnet_jax.prepare.dataset import PrepareOptions, prepare
from alexnet_jax.prepare.finalize import REPORT, Report
from alexnet_jax.prepare.inputs import InputOptions, open_inputs
from alexnet_jax.prepare.shards import ImageFormat
from alexnet_jax.runtime import progress

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Prepares the dataset that the config's section `prepare` describes, or resumes it.

    Raises:
      InputError: the inputs or the output folder are not as required.
    """
    config, keys = command.config, command.config.prepare
    names = [field.name for field in dataclasses.fields(InputOptions) if field.name != "data"]
    with console.status("Listing the images ..."):
        inputs = open_inputs(
            InputOptions(**{name: keys[name] for name in names}, data=data_options(config))
        )
    options = _options(config)
    with progress.bar(console, f"preparing {options.output}") as advance:
        report = prepare(inputs, options, advance)
    _log_problems(report, options.output / REPORT)
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    console.print(
        f"{options.output}: {counts} images of {len(next(iter(inputs.values())).classes.ids):,} classes. To train on "
        f"them: --config.data.source=prepared --config.data.root={shlex.quote(str(options.output))}"
        f"{_split_flags(report)}"
    )


def _options(config: ConfigDict) -> PrepareOptions:
    keys = config.prepare
    return PrepareOptions(
        ImageFormat(
            config.data.image_size, config.data.channels, keys.resize, keys.format, keys.quality
        ),
        Path(keys.output).expanduser(),
        keys.shard_size,
        keys.processes or os.cpu_count() or 1,
        keys.max_unreadable,
    )


def _log_problems(report: Report, path: Path) -> None:
    for warning in report.warnings:
        _log.warning("%s", warning)
    if report.unreadable:
        name, reason = report.unreadable[0]
        _log.warning(
            "Unreadable images left out: %d, such as %s (%s); %s lists them.",
            *(len(report.unreadable), name, reason, path),
        )


def _split_flags(report: Report) -> str:
    """Returns the flags that divide a dataset of one split for training and evaluation."""
    if len(report.counts) > 1:
        return ""
    (split,) = report.counts
    return f" --config.data.train_split='{split}[:90%]' --config.data.eval_split='{split}[90%:]'"
