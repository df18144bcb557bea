"""The files of a run: config.json, metrics.jsonl, status.json, each always complete on disk."""

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.errors import EXIT_LOST_PROCESS, InputError
from alexnet_jax.runtime.files import locked, write_atomically

Line = Mapping[str, Any]
ChangedKeys = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, tuple[Any, Any]]]

# Orbax takes brackets for a pattern, a backslash for a slash and "gs:" for a bucket, and writes
# what it cannot read again; control characters and bytes that are not UTF-8 break terminals.
_UNUSABLE = re.compile(r"[\[\]\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|:(?=/|$)")
_LONGEST = 3800  # bytes: Linux allows 4096, and the files of a checkpoint need some of them
_LINE: dict[str, Any] = {  # what every line of metrics holds, and more
    "split": str,
    "step": int,
    **dict.fromkeys(("epoch", "loss", "top1", "top5", "count", "images_per_second"), int | float),
}
_log = logging.getLogger(__name__)


class Workdir:
    """The folder of one run."""

    def __init__(self, path: Path, *, writes: bool = True):
        """Opens it.

        Args:
          path: the folder.
          writes: whether this process writes; of several that share a run, one does.
        """
        self.path = path
        self.writes = writes
        self.config = path / "config.json"
        self.metrics = path / "metrics.jsonl"
        self.status = path / "status.json"
        self.checkpoints = path / "checkpoints"
        self.tensorboard = path / "tensorboard"
        self.last: dict[str, Line] = {}
        self.best: Line | None = None
        self._follow(self.read_metrics())

    def _follow(self, lines: Iterable[Line]) -> None:
        """Keeps the last line of each split and the best evaluation, of equal ones the first."""
        for line in lines:
            brief = {name: value for name, value in line.items() if name != "norms"}
            self.last[line["split"]] = brief
            if line["split"] == "val" and (not self.best or line["top1"] > self.best["top1"]):
                self.best = brief

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the folder and holds it against other programs; the system frees it at the end.

        Raises:
          InputError: another program holds it, or the path cannot be used.
        """
        absolute = str(self.path.absolute())
        if (unusable := _UNUSABLE.search(absolute)) or len(os.fsencode(absolute)) > _LONGEST:
            reason = f"it contains {unusable[0]!r}" if unusable else "it is too long"
            raise InputError(f"The workdir {absolute!r} cannot be used: {reason}. Rename it.")
        with contextlib.ExitStack() as stack:
            try:
                if self.writes:
                    self.path.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked(self.path / "lock", f"The workdir {self.path}"))
            except OSError as error:
                reason = f"The workdir {self.path} cannot be written: {error.strerror}."
                raise InputError(reason) from error
            yield

    def create_or_resume(self, config: Mapping[str, Any], changed_keys: ChangedKeys) -> None:
        """Stores the config, or checks that the folder already holds a run with this one.

        A run without a checkpoint has nothing to lose: it takes any config.

        Args:
          config: the full tree.
          changed_keys: of two full trees, the old one first, the keys that must not differ and do.

        Raises:
          InputError: it holds a run with another config.
        """
        changed = changed_keys(self.read_config(), config) if self.config.exists() else {}
        if changed and any(path.name.isdecimal() for path in self.checkpoints.glob("*")):
            differences = "\n".join(
                f"  {path}: {old!r} there, {new!r} now" for path, (old, new) in changed.items()
            )
            raise InputError(
                f"The workdir {self.path} holds a run with another config:\n{differences}\n"
                "Give another --workdir, or that run's config. A new run starts from the "
                f"parameters of this one with --config.train.init_from={self.path}"
            )
        if self.writes:
            write_atomically(self.config, json.dumps(config, indent=2) + "\n")

    def read_config(self) -> dict[str, Any]:
        """Returns the full config tree of the run.

        Raises:
          InputError: there is none, or it is not JSON.
        """
        try:
            config: Any = json.loads(self.config.read_bytes())
        except OSError as error:
            raise InputError(f"{self.path} holds no run: config.json is missing.") from error
        except ValueError as error:
            raise InputError(f"{self.config} is damaged: {error}.") from error
        if not isinstance(config, dict):
            raise InputError(f"{self.config} is damaged: it holds no JSON object.")
        return config

    def write_status(
        self, status: str, message: str = "", step: int | None = None, exit_code: int | None = None
    ) -> None:
        """Writes status.json.

        Args:
          status: running, done, preempted, diverged, lost process or failed.
          message: what was printed for the user.
          step: steps done; None: as of the last line of metrics.
          exit_code: of the process, None while it runs.
        """
        if step is None:
            step = max((line["step"] for line in self.last.values()), default=0)
        fields = {"status": status, "step": step, "exit_code": exit_code, "message": message}
        if self.writes:
            text = json.dumps({**fields, "best": self.best, "last": self.last}, indent=2)
            write_atomically(self.status, text + "\n")

    def write_lost(self, message: str) -> None:
        """Writes status.json of a run that lost one of its processes."""
        self.write_status("lost process", message, exit_code=EXIT_LOST_PROCESS)

    def append_metrics(self, line: Line) -> None:
        """Adds one object to metrics.jsonl."""
        if self.writes:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self._follow([line])

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the objects of metrics.jsonl; a last line cut short by a kill is left out.

        Raises:
          InputError: another line is not a line of metrics.
        """
        lines: list[dict[str, Any]] = []
        text = self.metrics.read_bytes() if os.path.isfile(self.metrics) else b""
        for number, complete in enumerate(text.split(b"\n")[:-1], start=1):
            try:
                lines.append(json.loads(complete))
                for name, kind in _LINE.items():
                    if not isinstance(lines[-1][name], kind):
                        raise TypeError(name)
            except (ValueError, TypeError, KeyError) as error:
                where = f"Line {number} of {self.metrics}"
                reason = f"{where} is damaged: remove it, or the file. ({error!r})"
                raise InputError(reason) from error
        return lines

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines after a step."""
        if self.metrics.exists():
            kept = [line for line in self.read_metrics() if line["step"] <= step]
            if self.writes:
                write_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
            self.last, self.best = {}, None
            self._follow(kept)
