"""Job predict: the most probable classes of your own images, as tables, files and figures."""

import functools
import logging
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax.config.command_line import Command, run_of
from alexnet_jax.data import listing
from alexnet_jax.data.classes import ClassTable
from alexnet_jax.data.image_files import ImageFiles, list_image_files
from alexnet_jax.data.images import UnreadableImage
from alexnet_jax.data.source import Source
from alexnet_jax.errors import InputError
from alexnet_jax.evaluation.evaluate import batches_of, run_batches
from alexnet_jax.evaluation.step import jit_top_step
from alexnet_jax.experiment import read_options
from alexnet_jax.jobs.evaluate import warn_of_untrained_views
from alexnet_jax.parallel.mesh import make_layout, put_model
from alexnet_jax.reports import predictions
from alexnet_jax.runtime.files import partial_folder
from alexnet_jax.runtime.progress import Progress
from alexnet_jax.trained_model import TrainedModel, load_for

_log = logging.getLogger(__name__)
CLASSES_OF_A_FRAME = 32  # kept for the figure of frames, at least
ERRORS_LISTED = 5


def run(command: Command, console: Console) -> None:
    """Classifies `predict.images` and reports; unreadable images are an error at the end.

    Raises:
      InputError: images are missing or unreadable, the model cannot be loaded, or the files cannot
        be written.
    """
    options = command.config.predict
    paths = list_image_files(options.images)
    numbers = None if options.frames is False else predictions.frame_numbers(paths)
    if options.frames and numbers is None:
        numbers = list(range(len(paths)))
    folder = output_folder(command, options.output, "predictions")
    with partial_folder(folder, predictions.ADVICE):
        pass  # it can be written: known before the work
    trained, config = load_for(command)
    source = image_source(paths, trained)
    most = options.top if numbers is None else max(options.top, CLASSES_OF_A_FRAME)
    answers = classify(source, trained, most, config, console)
    name = (run_of(command.workdir) or command.workdir).resolve().name
    footer = f"{name}, step {trained.step:,}" if trained.step else name
    predictions.Report(folder, options.top, numbers, footer).write(answers, console)
    raise_if_unreadable(source, answers.unreadable, folder)


def classify(
    source: Source, trained: TrainedModel, most: int, config: ConfigDict, console: Console
) -> predictions.Answers:
    """Returns the most probable classes of every image.

    Args:
      source: the images.
      trained: the model.
      most: number of classes.
      config: how: its sections `predict`, `parallel` and `data`.
      console: shows the progress.
    """
    options, parallel = config.predict, config.parallel
    warn_of_untrained_views(options.views, trained.augmentation)
    layout = make_layout(parallel.strategy, parallel.devices)
    step = functools.partial(
        jit_top_step(trained.model, trained.augmentation, layout, options.views, most),
        *put_model(trained.variables, trained.statistics, trained.model.spec, layout),
    )
    batches = batches_of(source, padded_size(len(source), options.batch_size), layout.mesh)
    found, unreadable = [], dict[int, str]()
    with Progress(console, "batches predicted", len(batches)) as progress:
        for (_, broken), best in run_batches(
            step, batches, layout.mesh, read_options(config), progress.advance
        ):
            found.append(best)
            unreadable |= log_unreadable(source, broken)
    classes, shares = (np.concatenate(arrays)[: len(source)] for arrays in zip(*found, strict=True))
    shares[list(unreadable)] = np.nan
    outputs = ClassTable(trained.class_names, trained.class_labels)
    return predictions.Answers(source, outputs, classes, shares, unreadable)


def image_source(paths: list[Path], trained: TrainedModel) -> Source:
    """Returns image files as a model takes them."""
    size = trained.image_size
    return ImageFiles(paths, (size, size, trained.model.spec.channels), trained.resize)


def output_folder(command: Command, given: str | None, name: str) -> Path:
    """Returns the folder given, else the one of this name where the command writes."""
    return Path(given).expanduser() if given else command.output_folder / name


def padded_size(count: int, most: int) -> int:
    """Returns the size of batches: a power of two, so that few programs serve any few images."""
    return min(most, 1 << (count - 1).bit_length())


def log_unreadable(source: Source, indices: Iterable[int]) -> dict[int, str]:
    """Logs unreadable images; returns why, by index."""
    reasons = {index: _why_unreadable(source, index) for index in indices}
    for index, why in reasons.items():
        _log.warning("Skipped, unreadable: %s: %s", source.describe(index), why)
    return reasons


def _why_unreadable(source: Source, index: int) -> str:
    try:
        path = source.path(index)
        data = listing.read_file(path) if path else source.read(np.array([index]))[0].data
        source.decode_into(np.empty(source.image_shape, np.uint8), data)
    except (OSError, ValueError, UnreadableImage) as error:
        return getattr(error, "strerror", None) or str(error)
    return "it could not be read a moment ago"


def raise_if_unreadable(source: Source, indices: Collection[int], folder: Path) -> None:
    """Raises InputError if any images could not be read, after all others were."""
    if indices:
        first = list(indices)[:ERRORS_LISTED]
        names = ", ".join(source.describe(index) for index in first)
        more = f" and {len(indices) - len(first):,} more" if len(indices) > len(first) else ""
        others = len(indices) < len(source)
        kept = f" The results of all others are in {folder}." if others else ""
        raise InputError(
            f"{len(indices):,} of {len(source):,} images could not be read: {names}{more}.{kept} "
            "Replace these images or leave them out."
        )
