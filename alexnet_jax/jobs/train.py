"""Job train: one training run from its config to its report, in the order in which it happens.

`run` tells the story, `TrainingRun` its chapters: how a run starts, the loop, an evaluation and a
checkpoint on the way, the report at the end. What a step computes is in training/step.py.
"""

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from alexnet_jax import errors
from alexnet_jax.config.checks import changed_keys
from alexnet_jax.config.command_line import Command
from alexnet_jax.config.fine_tuning import from_scratch
from alexnet_jax.data.classes import difference
from alexnet_jax.data.pipeline import HostBatch, HostSlice, TrainingBatches, read_ahead
from alexnet_jax.data.source import Source, open_splits
from alexnet_jax.data.statistics import statistics_of
from alexnet_jax.evaluation.evaluate import batches_of, evaluate
from alexnet_jax.evaluation.step import jit_eval_step
from alexnet_jax.experiment import (
    Experiment,
    data_options,
    read_options,
    statistics_options,
)
from alexnet_jax.models.summary import describe_parameters
from alexnet_jax.parallel.distributed import monitor_processes
from alexnet_jax.parallel.mesh import host_slice, on_host, one_at_a_time, put_batch
from alexnet_jax.reports import training as report
from alexnet_jax.runtime.console import counted
from alexnet_jax.runtime.progress import Progress
from alexnet_jax.runtime.signals import ignore_requests, stop_requests
from alexnet_jax.runtime.workdir import Workdir
from alexnet_jax.trained_model import arrays_of, trained_model
from alexnet_jax.training import warm_start
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.reporter import Reporter, Timer
from alexnet_jax.training.state import TrainState
from alexnet_jax.weights import ModelFile, ReadOptions

_log = logging.getLogger(__name__)

IN_FLIGHT = 2  # steps sent to the devices ahead of the one that is known to be done


def run(command: Command, console: Console) -> None:
    """Trains, or resumes a run that was stopped, then draws its figures and prints its results.

    Raises:
      RunError: as its subclasses say; status.json holds the same message.
    """
    with stop_requests() as stop_requested:  # while the first run reports, it stops the second
        workdir = _train(command.config, command.workdir, console, stop_requested)
        if command.config.train.scratch_baseline:
            console.print("The same from scratch, for comparison:")
            config, path = from_scratch(command.config), command.workdir / "scratch"
            scratch = _train(config, path, console, stop_requested)
            if workdir.writes:
                report.print_comparison(workdir, scratch, console)


def _train(
    config: ConfigDict, path: Path, console: Console, stop_requested: Callable[[], bool]
) -> Workdir:
    """Trains, or resumes, the run of a config in a workdir, which is returned."""
    if (path / "checkpoints" / "0").is_dir():  # no run saves its step 0
        raise errors.InputError(
            f"{path} holds imported weights, not a run. Start a run from them: --workdir=NEW "
            f"--config.train.init_from={path}"
        )
    # The data and the parts come first: what is wrong with them must not leave a workdir behind.
    train, held_out = open_splits(data_options(config))
    experiment = Experiment.from_config(config, len(train.class_names), len(train))
    check_outputs(experiment, train)
    workdir = Workdir(path, writes=jax.process_index() == 0)
    with workdir.lock():
        workdir.create_or_resume(config.to_dict(), changed_keys)
        with _end_in_status(workdir), monitor_processes(workdir.write_lost):
            keep, keep_best = config.checkpoint.keep, config.checkpoint.keep_best
            checkpoints = Checkpoints(workdir.checkpoints, keep=keep, keep_best=keep_best)
            training = TrainingRun(
                config, console, workdir, experiment, checkpoints, train, held_out
            )
            with contextlib.closing(checkpoints):
                state = training.start()
                state = training.train_to_end(state, stop_requested)
            training.report(state)
    return workdir


def check_outputs(experiment: Experiment, train: Source) -> None:
    """Raises InputError where the model has fewer outputs than the data have classes."""
    outputs, classes = experiment.model.num_outputs, len(train.class_names)
    if outputs < classes:
        last = experiment.model.spec.output_layer.name
        raise errors.InputError(
            f"The model has {outputs} outputs, but the data have {classes} classes: leave "
            f"model.num_classes and model.layers.{last}.features unset, or raise them."
        )


def stop_before_first_step(stop_requested: Callable[[], bool], start: int) -> None:
    """Raises PreemptedError where a stop was requested: what was trained is saved already."""
    if stop_requested():
        message = f"Stopped before step {start + 1}. The same command goes on from there."
        raise errors.PreemptedError(message, start)


@contextlib.contextmanager
def _end_in_status(workdir: Workdir) -> Iterator[None]:
    """Writes status.json when a run ends early; see `errors.as_run_error`."""
    try:
        yield
    except BaseException as error:
        ignore_requests()
        if isinstance(error, OSError):
            error.filename = error.filename or str(workdir.path)
        ended = errors.as_run_error(error)
        if isinstance(error, KeyboardInterrupt):
            ended = errors.StoppedError(STOPPED_AT_ONCE)
        with contextlib.suppress(OSError):  # the disk may be full
            end = ended or errors.RunError(f"{type(error).__name__}: {error}")
            workdir.write_status(end.status, str(end), end.step, end.exit_code)
        if ended and ended is not error:
            raise ended from error
        raise


@dataclasses.dataclass
class TrainingRun:
    """The parts of one run, and what happens with them."""

    config: ConfigDict
    console: Console
    workdir: Workdir
    experiment: Experiment
    checkpoints: Checkpoints
    source: Source
    held_out: Source
    timer: Timer = dataclasses.field(default_factory=Timer)
    reporter: Reporter = dataclasses.field(init=False)
    last_learned: float = 0  # the last logged step whose loss was not that of guessing
    unreadable: set[int] = dataclasses.field(default_factory=set)

    # ---- Start

    def start(self) -> TrainState:
        """Returns the state to train from."""
        # A run starts in the first of these ways that applies:
        # 1. Resume: the workdir has a checkpoint. The run continues from its step, bit for bit.
        # 2. Warm start: train.init_from names a run, a checkpoint or a weight file. The parameters
        #    that train.init_layers and train.init_new_head choose, and the mean that is subtracted
        #    from images, are taken from it; everything else is as from scratch, at step 0.
        # 3. From scratch: the parameters are drawn from the seed.
        state = self._resume()
        if state is None:
            state = self._warm_start() if self.config.train.init_from else self._from_scratch()
            if self.config.augment.draw_first_batch and self.workdir.writes:
                batch = self._batches(HostSlice())[0].batch
                report.draw_first_batch(self.workdir, self.experiment, state, batch, self.source)
        return state

    def _resume(self) -> TrainState | None:
        abstract = self.experiment.abstract_state()
        state = self.checkpoints.restore_newest(abstract, self._check_trained_classes)
        step = -1 if state is None else int(state.step)
        self.workdir.truncate_metrics(step)
        if state is not None:
            self.timer = Timer(self.checkpoints.metadata(step)["elapsed_seconds"])
        return state

    def _check_trained_classes(self, metadata: dict[str, Any]) -> None:
        """Raises InputError where a checkpoint was trained on other classes than the data have."""
        if changes := difference(metadata["class_names"], self._metadata()["class_names"]):
            raise errors.InputError(
                f"The run in {self.workdir.path} was trained on other classes than data.root="
                f"{self.config.data.root!r} has now: {changes}. Restore the data, or start a new "
                f"run: --workdir=NEW --config.train.init_from={self.workdir.path}"
            )

    def _from_scratch(self, mean: np.ndarray | None = None) -> TrainState:
        """Returns the state at step 0, with the mean of the training images unless one is given."""
        options, threads = statistics_options(self.config), self.config.data.threads
        if mean is not None:
            options = dataclasses.replace(options, mean="none")
        with Progress(self.console, "images of the training statistics") as progress:
            statistics = statistics_of(self.source, options, threads, progress.advance)
        return self.experiment.initial_state(
            statistics if mean is None else {**statistics, "mean": mean}
        )

    def _warm_start(self) -> TrainState:
        options, spec = self.config.train, self.experiment.model.spec
        path = Path(options.init_from).expanduser()
        read_options = ReadOptions(**self.config.weights.to_dict())
        source = warm_start.read(path, options.init_checkpoint, read_options)
        warm = warm_start.WarmStart(source, path, options.init_layers, options.init_new_head)
        state = warm.apply(self._from_scratch(self._mean_of(source)), spec)
        takes = warm.takes(spec, state.params)
        _log.info(
            "%s Taken: %s. Freshly initialized: %s.",
            " ".join(source.notes),
            describe_parameters(takes),
            describe_parameters(jax.tree.map(operator.not_, takes)),
        )
        trained_on = source.classes.ids if source.classes else ()
        if all(takes[spec.output_layer.name].values()) and (
            changes := difference(trained_on, self._metadata()["class_names"])
        ):
            _log.warning("The classes of %s are others than here: %s.", path, changes)
        return state

    def _mean_of(self, source: ModelFile) -> np.ndarray | None:
        """Returns the mean that another model subtracts; None: it is unknown or not needed."""
        mean, shape = source.mean, self.experiment.statistics["mean"]
        is_given = self.config.augment.mean in ("given", "none")
        if mean is None or is_given or mean.size != math.prod(shape):
            return None
        return mean.reshape(shape)

    # ---- Compile, then loop

    def train_to_end(self, state: TrainState, stop_requested: Callable[[], bool]) -> TrainState:
        """Trains from a state, which is donated, to the last step or where a stop is requested.

        Raises:
          DivergedError: the loss or a gradient was not finite.
          PreemptedError: the process was asked to stop; the state is saved.
        """
        start, total = int(state.step), self.experiment.durations.total
        self.last_learned, path = start, self.workdir.path
        if start >= total:
            self.console.print(f"The run in {path} is finished: {start} of {total} steps are done.")
            return state
        self.workdir.write_status("running", step=start)
        stop_before_first_step(stop_requested, start)
        _log.info(
            "%s from step %d of %s: compiling %s, strategy %s, %s of %s.",
            *("Resuming" if start else "Starting", start, path, self.config.model.name),
            self.config.parallel.strategy,
            counted(self.experiment.mesh.size, "device", "devices"),
            counted(jax.process_count(), "process", "processes"),
        )
        trained = self.experiment.optimizer.is_trained(self.experiment.model.spec, state.params)
        if not jax.tree.all(trained):
            frozen = jax.tree.map(operator.not_, trained)
            _log.info("Frozen, without a gradient: %s.", describe_parameters(frozen))
        train_step = one_at_a_time(self.experiment.compile_train_step(state))
        stop_before_first_step(stop_requested, start)
        batches = self._batches(host_slice(self.experiment.mesh))
        with (
            Progress(self.console, "step", total, start) as progress,
            Reporter(self.workdir, progress, start) as self.reporter,
            read_ahead(batches, read_options(self.config), start) as iterator,
        ):
            self.timer.lap(start)
            return self._loop(state, train_step, iterator, progress, stop_requested)

    def _batches(self, host: HostSlice) -> TrainingBatches:
        return TrainingBatches(self.source, self.config.seed, self.config.train.batch_size, host)

    def _loop(
        self,
        state: TrainState,
        train_step: Callable[..., Any],
        batches: Iterator[HostBatch],
        progress: Progress,
        stop_requested: Callable[[], bool],
    ) -> TrainState:
        durations, pending = self.experiment.durations, collections.deque[tuple[int, Any]]()
        for step in range(int(state.step) + 1, durations.total + 1):
            batch, unreadable = next(batches)
            for index in set(unreadable) - self.unreadable:
                _log.warning("Unreadable, not counted: %s", self.source.describe(index))
            self.unreadable.update(unreadable)
            state, log = train_step(state, put_batch(batch, self.experiment.mesh))
            pending.append((step, log))
            stopping = stop_requested()
            milestone = stopping or durations.evaluates(step) or durations.saves(step)
            # A step is logged once it is done, while devices are busy with the ones after it.
            while pending and (
                milestone or len(pending) > IN_FLIGHT or pending[0][1]["first_bad_step"].is_ready()
            ):
                self._log_step(*pending.popleft())
            progress.advance(step)
            if milestone:
                state = self._milestone(step, state, stopping)
            with self.timer.pause():
                self.checkpoints.verify()
            if stopping and step < durations.total:
                message = f"Stopped at step {step}. The state is saved; the same command resumes."
                raise errors.PreemptedError(message, step)
        return state

    # ---- Evaluate and save

    def _milestone(self, step: int, state: TrainState, stopping: bool) -> TrainState:
        """Evaluates, then saves: at the planned steps, and each state that is the best so far."""
        durations, top1 = self.experiment.durations, None
        with self.timer.pause():
            jax.block_until_ready(state)
            if durations.evaluates(step):
                top1 = self._evaluate(step, state)
                plateau = state.plateau.update(top1, **self.config.optimizer.plateau)
                plateau = jax.device_put(plateau, state.step.sharding)
                state = dataclasses.replace(state, plateau=plateau)
            best = (self.workdir.best or {}).get("step") == step
            if stopping or best or durations.saves(step):
                metadata = {**self._metadata(), "elapsed_seconds": self.timer.elapsed}
                self.checkpoints.save(state, metadata, top1)
            self.checkpoints.verify(wait=stopping or step == durations.total)
        return state

    def _evaluate(self, step: int, state: TrainState) -> float:
        """Returns the top-1 of a state over the whole evaluation split, and logs its metrics."""
        before = self.timer.elapsed
        eval_step = functools.partial(self._eval_step, state.variables, state.statistics)
        batch_size = self.config.evaluation.batch_size or self.config.train.batch_size
        mesh = self.experiment.mesh
        batches = batches_of(self.held_out, batch_size, mesh)
        means = evaluate(eval_step, batches, mesh, read_options(self.config)).means()
        if not math.isfinite(means["loss"]):  # before the next step shows it, and before saving
            raise self._diverged(step)
        self._record(step, "val", means, means["count"] / (self.timer.elapsed - before))
        return float(means["top1"])

    @functools.cached_property
    def _eval_step(self) -> Any:
        parts = self.experiment
        return jit_eval_step(parts.model, parts.augmentation, parts.layout)

    def _metadata(self) -> dict[str, Any]:
        """Returns what is stored with the arrays of a checkpoint: all that using them takes."""
        table = self.source.classes.padded(self.experiment.model.num_outputs)
        classes = {"class_names": table.ids, "class_labels": table.labels}
        return {"config": self.config.to_dict(), **classes, "num_examples": len(self.source)}

    # ---- Log

    def _log_step(self, step: int, log: dict[str, Any]) -> None:
        if (bad := int(log["first_bad_step"])) >= 0:
            raise self._diverged(bad)
        if not self.experiment.durations.logs(step):
            return
        metrics = log["window"].means()
        rates, norms = jax.tree.map(float, (log["learning_rates"], log["norms"]))
        for row in norms.values():
            row["ratio"] = row["update"] / max(row["parameter"], 1e-30)
        if step % self.experiment.durations.log_every:  # a last step whose norms are not computed
            norms = {}
        images_per_second = self.timer.lap(step) * self.config.train.batch_size
        metrics |= {"learning_rates": rates, "norms": norms}
        self._record(step, "train", metrics, images_per_second)
        self._warn_if_stuck(step, metrics["loss"])

    def _record(self, step: int, split: str, metrics: dict[str, Any], rate: float) -> None:
        epoch = step * self.config.train.batch_size / len(self.source)
        timings = {"images_per_second": rate, "elapsed_seconds": self.timer.elapsed}
        self.reporter.record({"step": step, "epoch": epoch, "split": split} | metrics | timings)

    def _diverged(self, step: int) -> errors.DivergedError:
        self.checkpoints.verify(wait=True)
        rates = ", ".join(
            f"optimizer.rates.{name}.rate (now {self.config.optimizer.rates[name].rate:g})"
            for name, rate in self.experiment.optimizer.rates.items()
            if not rate.is_zero
        )
        path, message = self.workdir.path, f"Step {step}: the loss or a gradient is not finite."
        message += f" Lower {rates} and start again"
        if saved := self.checkpoints.steps():
            message += f", from the last good state, that of step {saved[-1]}: --workdir=NEW "
            message += f"--config.train.init_from={path} --config.train.init_checkpoint=latest"
        if self.workdir.metrics.exists():
            message += f"\n`norms` in {self.workdir.metrics} show the layer whose updates grew."
        return errors.DivergedError(message, step)

    def _warn_if_stuck(self, step: int, loss: float) -> None:
        chance = math.log(len(self.source.class_names))
        if abs(loss - chance) > 0.01 * chance:
            self.last_learned = step
        elif step - self.last_learned >= self.experiment.durations.stuck_after:
            _log.warning(STUCK, step, loss, chance)
            self.last_learned = math.inf  # warned once

    # ---- Report

    def report(self, state: TrainState) -> None:
        """Draws the figures of the trained model and prints the results."""
        arrays = on_host(arrays_of(state), self.experiment.mesh)
        trained = trained_model(self.experiment, arrays, self._metadata(), int(state.step))
        if self.workdir.writes:
            report.draw(self.workdir, trained, self.held_out)
            self.workdir.write_status("done", step=trained.step, exit_code=errors.EXIT_DONE)
            report.print_results(self.workdir, self.console)


STOPPED_AT_ONCE = "Stopped at once. The same command resumes from its last checkpoint, if any."
STUCK = (
    "Step %d: the loss, %.4f, is still that of guessing, ln(classes) = %.4f. Likely causes: a "
    "learning rate too small or too large (optimizer.rates.weights.rate); initial weights too "
    "small, as in paper_text (model.initializer); biases of 1 with inputs scaled to about 1 "
    "(augment.scale); labels that do not belong to their images."
)
