"""The training loop: steps, log lines, evaluations and checkpoints in a fixed order."""

import collections
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from alexnet_jax.data.pipeline import HostBatch
from alexnet_jax.data.source import Source
from alexnet_jax.errors import DivergedError, PreemptedError
from alexnet_jax.parallel.mesh import put_batch
from alexnet_jax.training.checkpoint import Checkpoints
from alexnet_jax.training.reporter import Reporter, Timer
from alexnet_jax.training.state import TrainState

_log = logging.getLogger(__name__)

IN_FLIGHT = 2  # steps sent to the devices ahead of the one that is known to be done


@dataclasses.dataclass(frozen=True)
class Durations:
    """The lengths of a run in steps."""

    total: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    stuck_after: int


@dataclasses.dataclass
class Loop:
    """One training run from the state it is given to its last step.

    Attributes:
      config: the run's.
      plan: its lengths.
      train_step: compiled, (state, batch) -> (state, log).
      evaluate: state -> loss, top1, top5 (means) and count of the evaluation split.
      source: the training split.
      mesh: the devices.
      checkpoints: where states are saved.
      about: what is saved beside each state.
      reporter, clock: what tells and times the run.
      stop_requested: step -> whether the run was asked to stop there.
    """

    config: ConfigDict
    plan: Durations
    train_step: Callable[[TrainState, Any], tuple[TrainState, dict[str, Any]]]
    evaluate: Callable[[TrainState], Mapping[str, Any]]
    source: Source
    mesh: Mesh
    checkpoints: Checkpoints
    about: dict[str, Any]
    reporter: Reporter
    clock: Timer
    stop_requested: Callable[[int], bool]
    _stuck_since: int | None = None
    _said_stuck: bool = False
    _named: set[int] = dataclasses.field(default_factory=set)

    def run(self, state: TrainState, batches: Iterator[HostBatch]) -> TrainState:
        """Trains to the end.

        Args:
          state: where to start; donated.
          batches: the training batches from the state's step on.

        Raises:
          DivergedError: the loss or a gradient was not finite.
          PreemptedError: the process was asked to stop; the state is saved.
        """
        in_flight: collections.deque[dict[str, Any]] = collections.deque()
        unwritten: collections.deque[tuple[int, dict[str, Any]]] = collections.deque()
        self.clock.lap(int(state.step))
        for step in range(int(state.step) + 1, self.plan.total + 1):
            batch, unreadable = next(batches)
            self._name_unreadable(unreadable)
            state, log = self.train_step(state, put_batch(batch, self.mesh))
            in_flight.append(log)
            if len(in_flight) > IN_FLIGHT:
                self._check_finite(in_flight.popleft())
            self._log_train(unwritten)  # a step late, so that the devices never wait for the log
            if step % self.plan.log_every == 0 or step == self.plan.total:
                unwritten.append((step, log))
            if log["first_bad_step"].is_ready():  # they do wait: on a CPU
                self._log_train(unwritten)
            self.reporter.advance(step)
            stopping = self.stop_requested(step)
            if stopping or self._is_milestone(step):
                self._check_finite(log)
                self._log_train(unwritten)
                state = self._milestone(step, state, stopping)
            if stopping and step < self.plan.total:
                raise PreemptedError(
                    f"Stopped at step {step}; the state is saved, and the same command goes on "
                    "from there.",
                    step,
                )
        return state

    def _is_milestone(self, step: int) -> bool:
        return (
            step % self.plan.evaluate_every == 0
            or step % self.plan.checkpoint_every == 0
            or step == self.plan.total
        )

    def _milestone(self, step: int, state: TrainState, stopping: bool) -> TrainState:
        """Evaluates, then saves, as the plan wants it."""
        last = step == self.plan.total
        top1 = None
        with self.clock.pause():
            jax.block_until_ready(state)
            if step % self.plan.evaluate_every == 0 or last:
                metrics = self._log_evaluation(step, state)
                top1 = metrics["top1"]
                plateau = state.plateau.update(top1, **self.config.optimizer.plateau)
                plateau = jax.device_put(plateau, state.step.sharding)
                state = dataclasses.replace(state, plateau=plateau)
            if stopping or last or step % self.plan.checkpoint_every == 0:
                about = {**self.about, "elapsed_seconds": self.clock.elapsed}
                self.checkpoints.save(state, about, top1, wait=stopping or last)
        return state

    def _log_train(self, unwritten: collections.deque[tuple[int, dict[str, Any]]]) -> None:
        """Writes the lines that wait, and has none waiting."""
        while unwritten:
            self._log_line(*unwritten.popleft())

    def _log_line(self, step: int, log: dict[str, Any]) -> None:
        log = jax.device_get(log)
        self._check_finite(log)  # JSON knows no NaN
        means = log["window"].means()
        rate = self.clock.lap(step) * self.config.train.batch_size
        self.reporter.record(
            {
                "step": step,
                "epoch": self._epoch(step),
                "split": "train",
                **means,
                "learning_rates": {name: float(x) for name, x in log["learning_rates"].items()},
                "norms": _with_ratios(log["norms"]) if step % self.plan.log_every == 0 else {},
                "images_per_second": rate,
                "elapsed_seconds": self.clock.elapsed,
            }
        )
        self._warn_if_stuck(step, means["loss"])

    def _log_evaluation(self, step: int, state: TrainState) -> dict[str, Any]:
        before = self.clock.elapsed
        means = self.evaluate(state)
        if not math.isfinite(means["loss"]):  # before the next step shows it, and before saving
            raise self._diverged(step)
        seconds = self.clock.elapsed - before
        line = {
            "step": step,
            "epoch": self._epoch(step),
            "split": "val",
            **means,
            "images_per_second": means["count"] / seconds,
            "elapsed_seconds": self.clock.elapsed,
        }
        self.reporter.record(line)
        return line

    def _epoch(self, step: int) -> float:
        return step * self.config.train.batch_size / len(self.source)

    def _check_finite(self, log: dict[str, Any]) -> None:
        bad = int(log["first_bad_step"])
        if bad >= 0:
            raise self._diverged(bad)

    def _diverged(self, step: int) -> DivergedError:
        saved = self.checkpoints.steps()
        kept = (
            f"The last good state is that of step {saved[-1]}." if saved else "None was saved yet."
        )
        return DivergedError(
            f"Step {step}: the loss or a gradient is no longer a finite number. {kept} "
            "Lower the learning rates (optimizer.rates), or look at `norms` in metrics.jsonl for "
            "the layer whose updates grew.",
            step,
        )

    def _warn_if_stuck(self, step: int, loss: float) -> None:
        chance = math.log(len(self.source.class_names))
        if abs(loss - chance) > 0.01 * chance:
            self._stuck_since = None
            return
        if self._stuck_since is None:
            self._stuck_since = step
        if step - self._stuck_since >= self.plan.stuck_after and not self._said_stuck:
            self._said_stuck = True
            _log.warning(STUCK, step, loss, chance)

    def _name_unreadable(self, indices: tuple[int, ...]) -> None:
        for index in indices:
            if index not in self._named:
                self._named.add(index)
                _log.warning("Unreadable, counted with weight 0: %s", self.source.describe(index))


STUCK = (
    "Step %d: the loss, %.4f, has long been that of guessing, ln(classes) = %.4f. Likely causes: "
    "biases of 1 with inputs scaled to about 1 (augment.scale) drown the picture's signal; initial "
    "weights too small, as in paper_text; a learning rate too small or too large; labels that do "
    "not belong to their pictures."
)


def _with_ratios(norms: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Adds update/parameter to each parameter's norms, as plain floats."""
    rows = {
        name: {kind: float(value) for kind, value in row.items()} for name, row in norms.items()
    }
    return {
        name: {**row, "ratio": row["update"] / max(row["parameter"], 1e-30)}
        for name, row in rows.items()
    }
