"""Job train: from a config to a trained, evaluated net, or on from where it stopped."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax.config.command_line import Command
from alexnet_jax.config.resume import changed_keys
from alexnet_jax.data.pipeline import TrainingBatches, read_ahead
from alexnet_jax.data.source import Source, open_splits
from alexnet_jax.data.statistics import statistics_of
from alexnet_jax.errors import EXIT_DONE, EXIT_INTERNAL, EXIT_LOST_PROCESS, InputError, RunError
from alexnet_jax.evaluation.evaluate import batches_of, evaluate
from alexnet_jax.evaluation.step import jit_eval_step
from alexnet_jax.experiment import (
    Experiment,
    data_options,
    read_options,
    statistics_options,
)
from alexnet_jax.parallel.distributed import monitor_processes
from alexnet_jax.parallel.mesh import host_slice, on_host, one_at_a_time
from alexnet_jax.reports import training
from alexnet_jax.runtime import progress
from alexnet_jax.runtime.signals import stop_requests
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import TrainedModel
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.loop import Loop
from alexnet_jax.training.reporter import Reporter, Timer
from alexnet_jax.training.state import TrainState

_log = logging.getLogger(__name__)


def run(command: Command, console: Console) -> None:
    """Trains, or goes on with a run that was stopped, and draws its pictures.

    Raises:
      RunError: as its subclasses say; status.json tells the same.
    """
    config = command.config
    train, held_out = open_splits(data_options(config))
    check_classes(config, train)
    workdir = Workdir(command.workdir, writes=jax.process_index() == 0)
    workdir.create_or_resume(config.to_dict(), changed_keys)
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    checkpoints = Checkpoints(
        workdir.checkpoints, keep=config.checkpoint.keep, keep_best=config.checkpoint.keep_best
    )

    def lost(message: str) -> None:
        workdir.write_status("lost peer", step=None, exit_code=EXIT_LOST_PROCESS, message=message)

    try:
        with monitor_processes(lost):
            state = _train(command, console, workdir, experiment, checkpoints, train, held_out)
            trained = model_of(experiment, state, train)
            if workdir.writes:
                training.finish(workdir, trained, held_out, console)
            workdir.write_status("done", step=int(state.step), exit_code=EXIT_DONE)
    except RunError as error:
        workdir.write_status(
            error.status, step=error.step, exit_code=error.exit_code, message=str(error)
        )
        raise
    except BaseException as error:
        workdir.write_status(
            "failed", step=None, exit_code=EXIT_INTERNAL, message=f"{type(error).__name__}: {error}"
        )
        raise
    finally:
        checkpoints.close()


def check_classes(config: ConfigDict, train: Source) -> None:
    """Raises InputError where the model has fewer outputs than the data have classes."""
    classes = len(train.class_names)
    if config.model.num_classes and config.model.num_classes < classes:
        raise InputError(
            f"model.num_classes is {config.model.num_classes}, but the data have {classes} classes."
        )


def _train(
    command: Command,
    console: Console,
    workdir: Workdir,
    experiment: Experiment,
    checkpoints: Checkpoints,
    train: Source,
    held_out: Source,
) -> TrainState:
    config = command.config
    state, elapsed = _start(config, console, workdir, experiment, checkpoints, train)
    start, total = int(state.step), experiment.plan.total
    if start >= total:
        console.print(f"The run in {workdir.path} is finished: {start} of {total} steps are done.")
        return state
    if start:
        _log.info("Going on from step %d of %s.", start, workdir.path)
    workdir.write_status("running", step=start)
    _log.info(
        "%s by %s on %d devices of %d processes, in %s: compiling.",
        *(config.model.name, config.parallel.strategy, experiment.mesh.size, jax.process_count()),
        workdir.path,
    )
    with console.status("Compiling the train step ..."):
        train_step = one_at_a_time(experiment.compile_train_step(state))
    with (
        stop_requests() as stop_requested,
        Reporter(workdir, total, start, console) as reporter,
        read_ahead(
            TrainingBatches(
                train, config.seed, config.train.batch_size, host_slice(experiment.mesh)
            ),
            read_options(config),
            start,
        ) as batches,
    ):
        loop = Loop(
            config=config,
            plan=experiment.plan,
            train_step=train_step,
            evaluate=_evaluation(config, experiment, held_out),
            source=train,
            mesh=experiment.mesh,
            checkpoints=checkpoints,
            about=_about(config, train),
            reporter=reporter,
            clock=Timer(elapsed),
            stop_requested=stop_requested,
        )
        return loop.run(state, batches)


def _evaluation(
    config: ConfigDict, experiment: Experiment, held_out: Source
) -> Callable[[TrainState], dict[str, Any]]:
    """Returns a function that gives the metrics of a state over the whole of a split."""
    eval_step = jit_eval_step(experiment.model, experiment.augmentation, experiment.layout)

    batch_size = config.evaluation.batch_size or config.train.batch_size
    batches = batches_of(held_out, batch_size, experiment.mesh)

    def measure(state: TrainState) -> dict[str, Any]:
        step = functools.partial(eval_step, state.variables, state.statistics)
        return evaluate(step, batches, experiment.mesh, read_options(config)).means()

    return measure


def _start(
    config: ConfigDict,
    console: Console,
    workdir: Workdir,
    experiment: Experiment,
    checkpoints: Checkpoints,
    train: Source,
) -> tuple[TrainState, float]:
    """Returns the state to go on from and the seconds spent so far: this run's, or a new one."""
    state = checkpoints.restore_newest(experiment.abstract_state())
    if state is not None:
        step = int(state.step)
        workdir.truncate_metrics(step)
        return state, checkpoints.about(step)["elapsed_seconds"]
    workdir.truncate_metrics(-1)
    with progress.bar(console, f"statistics of {len(train):,} pictures") as advance:
        statistics = statistics_of(train, statistics_options(config), config.data.threads, advance)
    state = experiment.initial_state(statistics)
    if config.augment.draw_first_batch and workdir.writes:
        batch = TrainingBatches(train, config.seed, config.train.batch_size)[0].batch
        training.draw_first_batch(workdir, experiment, state, batch, train)
    return state, 0.0


def model_of(experiment: Experiment, state: TrainState, train: Source) -> TrainedModel:
    """Returns the trained net with its preprocessing and classes."""
    return TrainedModel(
        model=experiment.model,
        augmentation=experiment.augmentation,
        variables=on_host(state.variables, experiment.mesh),
        statistics=on_host(state.statistics, experiment.mesh),
        class_names=train.class_names,
        class_labels=train.class_labels,
        image_size=train.image_shape[0],
        step=int(state.step),
    )


def _about(config: ConfigDict, train: Source) -> dict[str, Any]:
    """Returns what a checkpoint says of its weights: all that using them takes."""
    return {
        "config": config.to_dict(),
        "class_names": list(train.class_names),
        "class_labels": list(train.class_labels),
        "num_examples": len(train),
    }
