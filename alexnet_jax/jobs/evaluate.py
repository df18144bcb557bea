"""Job evaluate: measures a checkpoint on the whole evaluation split, in numbers and figures."""

import functools
import logging
import time
from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.data.classes import ClassTable, difference
from alexnet_jax.data.source import Source, open_source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluate import batches_of, evaluate
from alexnet_jax.evaluation.step import jit_eval_step, usual_scales
from alexnet_jax.experiment import data_options, read_options
from alexnet_jax.parallel.distributed import monitor_processes
from alexnet_jax.parallel.mesh import make_layout, put_model
from alexnet_jax.preprocessing.augment import Augmentation
from alexnet_jax.reports import evaluation
from alexnet_jax.runtime.progress import Progress
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import TrainedModel, load_for

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Evaluates `evaluation.checkpoint` of the workdir; process 0 writes the report there.

    Raises:
      InputError: the workdir holds no checkpoint or cannot be written, or the data do not fit it.
    """
    workdir, options = Workdir(command.output_folder), command.config.evaluation
    with monitor_processes():
        trained, config = load_for(command)
        source = open_source(data_options(config), config.data.eval_split, trained.class_names)
        _check_classes(trained, source, command.workdir)
        warn_of_untrained_views(options.views, trained.augmentation)
        metadata = {"checkpoint": trained.step, "split": source.split, "views": options.views}
        if options.views == "dense":
            usual = usual_scales(trained.augmentation.crop_size, config.data.image_size)
            metadata["scales"] = options.scales or usual
        outputs = ClassTable(trained.class_names, trained.class_labels)
        report = evaluation.Report(workdir, metadata, source, outputs)
        if jax.process_index() == 0:
            report.check_writable()  # before the work
        start = time.monotonic()

        layout = make_layout(config.parallel.strategy, config.parallel.devices)
        eval_step = functools.partial(
            jit_eval_step(
                trained.model, trained.augmentation, layout, options.views, options.scales
            ),
            *put_model(trained.variables, trained.statistics, trained.model.spec, layout),
        )
        batches = batches_of(source, options.batch_size or config.train.batch_size, layout.mesh)
        with Progress(console, "batches evaluated", len(batches)) as progress:
            predictions = evaluate(
                eval_step, batches, layout.mesh, read_options(config), progress.advance
            )
    if jax.process_index() == 0:
        metadata["seconds"] = round(time.monotonic() - start, 1)
        report.write(predictions, console)


def _check_classes(trained: TrainedModel, source: Source, path: Path) -> None:
    """Raises InputError where the split has other classes than the model was made for."""
    if found := difference(trained.class_names, source.class_names):
        raise InputError(
            f"The split {source.split} of {source.name} has other classes than the model in "
            f"{path}: {found}. Give the data that it was trained for."
        )
    present, known = len(np.unique(source.labels)), len(trained.class_names)
    if present < known:
        _log.info("%d of the model's %d classes have images.", present, known)


def warn_of_untrained_views(views: str, augmentation: Augmentation) -> None:
    """Logs a warning where the views include what training did not."""
    missing = [key for key in ("random_flip", "random_crop") if not getattr(augmentation, key)]
    if views != "center" and missing:
        _log.warning(
            "views=%s includes mirror images and off-center crops, but the run was trained with "
            "%s: the accuracy may be lower than with views=center.",
            *(views, " and ".join(f"augment.{key}=False" for key in missing)),
        )
