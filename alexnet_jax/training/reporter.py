"""What a run tells while it goes on: metrics.jsonl, TensorBoard, a progress bar or plain lines."""

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from alexnet_jax.runtime.workdir import Workdir

_log = logging.getLogger(__name__)


class Timer:
    """Times a run: its rate without what pauses take, its seconds in all and across restarts."""

    def __init__(self, elapsed: float = 0.0):
        """Starts at step 0; `elapsed` is what earlier sessions of the run took."""
        self._start = time.monotonic() - elapsed
        self._paused = 0.0
        self._lap = time.monotonic()
        self._step = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, all included."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Leaves what happens inside out of the laps: compiling, evaluating, saving."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._paused += time.monotonic() - start

    def lap(self, step: int) -> float:
        """Returns the steps a second since the last lap or the start, and begins the next lap."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._lap - self._paused, 1e-9)
        self._lap, self._paused, self._step = now, 0.0, step
        return rate


class Reporter:
    """Tells of one training run; a context manager that holds the progress bar."""

    def __init__(self, workdir: Workdir, total_steps: int, start: int, console: Console):
        from tensorboardX import SummaryWriter  # slow to import, only needed in training

        self._workdir = workdir
        self._total = total_steps
        self._writer = SummaryWriter(
            str(workdir.tensorboard), purge_step=start + 1, write_to_disk=workdir.writes
        )
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(
            "train", total=total_steps, completed=start, news=""
        )
        self._start, self._began = start, time.monotonic()

    def __enter__(self) -> "Reporter":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        self._writer.close()

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step`."""
        self._progress.update(self._task, completed=step)

    def record(self, line: Mapping[str, Any]) -> None:
        """Writes one line of metrics everywhere.

        Args:
          line: an object of metrics.jsonl: step, epoch, split, loss, top1, top5, count, timings,
            and for the training split learning_rates and norms.
        """
        self._workdir.append_metrics(line)
        self._workdir.write_status("running", step=line["step"])
        for name, value in _scalars(line):
            self._writer.add_scalar(f"{line['split']}/{name}", value, line["step"])
        self._writer.flush()
        news = (
            f"{line['split']} loss {line['loss']:.4f}  top-1 {line['top1']:.2%}  "
            f"{line['images_per_second']:.0f} images/s"
        )
        if self._progress.disable:
            step, total = line["step"], self._total
            done = step - self._start
            left = (time.monotonic() - self._began) / done * (total - step) if done > 0 else 0.0
            _log.info(
                "step %d/%d  epoch %.2f  %s  ETA %s", step, total, line["epoch"], news, _hms(left)
            )
        else:
            self._progress.update(self._task, news=news)


def _scalars(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name not in ("step", "count"):
            yield f"{prefix}{name}", value


def _hms(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
