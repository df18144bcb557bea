"""Job prepare: pictures of any layout to one set of one size, with its statistics."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.prepare.dataset import prepare
from alexnet_jax.prepare.finalize import REPORT
from alexnet_jax.prepare.inputs import open_inputs
from alexnet_jax.prepare.shards import ImageFormat
from alexnet_jax.runtime import progress

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Prepares the set that the config's `prepare` part describes, or goes on with it.

    Raises:
      InputError: the inputs, the output or the disk are not as they must be.
    """
    config = command.config
    keys = config.prepare
    root = Path(keys.output).expanduser()
    with console.status("Listing the pictures ..."):
        inputs = open_inputs(config)
    recipe = ImageFormat(
        config.data.image_size, config.data.channels, keys.resize, keys.format, keys.quality
    )
    with progress.bar(console, f"preparing {root}") as advance:
        report = prepare(
            inputs,
            recipe,
            root,
            shard_size=keys.shard_size,
            processes=keys.processes or os.cpu_count() or 1,
            max_unreadable=keys.max_unreadable,
            progress=advance,
        )
    for warning in report.warnings:
        _log.warning("%s", warning)
    if report.unreadable:
        name, reason = report.unreadable[0]
        _log.warning(
            "Unreadable pictures left out: %d, such as %s (%s); %s lists them.",
            len(report.unreadable),
            name,
            reason,
            root / REPORT,
        )
    counts = ", ".join(f"{count:,} {split}" for split, count in report.counts.items())
    console.print(
        f"{root}: {counts} pictures of {len(inputs.classes.ids):,} classes. To train on them: "
        f"--config.data.source=prepared --config.data.root={root}{_parts(report.counts)}"
    )


def _parts(splits: Mapping[str, int]) -> str:
    """Returns the words that divide a set of one split."""
    if len(splits) > 1:
        return ""
    (split,) = splits
    return f" --config.data.train_split='{split}[:90%]' --config.data.eval_split='{split}[90%:]'"
