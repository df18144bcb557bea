"""The metrics of a training run: metrics.jsonl, status.json, TensorBoard and the progress."""

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from flax.traverse_util import flatten_dict

from alexnet_jax.runtime.progress import Progress
from alexnet_jax.runtime.workdir import Workdir


class Timer:
    """Times a run: its rate without pauses, and its seconds in total, across restarts."""

    def __init__(self, elapsed: float = 0.0):
        """Starts at step 0; `elapsed` is what earlier sessions of the run took."""
        self._start = time.monotonic() - elapsed
        self._lap, self._step = time.monotonic(), 0

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, everything included."""
        return time.monotonic() - self._start

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes what happens inside from the laps: compiling, evaluating, saving."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._lap += time.monotonic() - start

    def lap(self, step: int) -> float:
        """Returns the steps per second since the last lap or the start, and begins the next lap."""
        now = time.monotonic()
        rate = (step - self._step) / max(now - self._lap, 1e-9)
        self._lap, self._step = now, step
        return rate


class Reporter(contextlib.AbstractContextManager["Reporter"]):
    """Writes the metrics of one training run; a context manager that closes TensorBoard's file."""

    def __init__(self, workdir: Workdir, progress: Progress, start: int):
        """Opens TensorBoard's file.

        Args:
          workdir: of the run.
          progress: shows each line in brief.
          start: the step that the run starts from; what TensorBoard holds after it is superseded.
        """
        self._workdir, self._progress = workdir, progress
        self._events: Any = None
        if workdir.writes:
            # Slow to import. Its SummaryWriter would hide a full disk in a thread, and hang then.
            from tensorboardX.event_file_writer import EventsWriter

            workdir.tensorboard.mkdir(exist_ok=True)
            self._events = EventsWriter(
                str(workdir.tensorboard.absolute() / "events"), f".{os.getpid()}.{start}"
            )
            self._write_event(step=start + 1, session_log={"status": "START"})

    def __exit__(self, *_: object) -> None:
        if self._events:
            self._events.close()

    def record(self, line: dict[str, Any]) -> None:
        """Writes one line of metrics everywhere.

        Args:
          line: an object of metrics.jsonl: step, epoch, split, loss, top1, top5, count, timings,
            and for the training split learning_rates and norms.
        """
        self._workdir.append_metrics(line)
        self._workdir.write_status("running", step=line["step"])
        values = [
            {"tag": f"{line['split']}/{name}", "simple_value": value}
            for name, value in flatten_dict(line, sep="/").items()
            if isinstance(value, (int, float)) and name not in ("step", "count")
        ]
        self._write_event(step=line["step"], summary={"value": values})
        self._progress.report(
            line["step"],
            f"epoch {line['epoch']:.2f}  {line['split']} loss {line['loss']:.4f}  "
            f"top-1 {line['top1']:.2%}  {line['images_per_second']:.0f} images/s",
        )

    def _write_event(self, **fields: Any) -> None:
        if self._events:
            from tensorboardX.proto.event_pb2 import Event

            self._events.write_event(Event(wall_time=time.time(), **fields))
            self._events.flush()
