"""The files a run leaves: config.json, metrics.jsonl, status.json; each always whole on disk."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alexnet_jax.errors import InputError
from alexnet_jax.runtime.files import write_atomically

Line = Mapping[str, Any]
ChangedKeys = Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, tuple[Any, Any]]]


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
        self._last: dict[str, Line] = {}
        self._best: Line | None = None
        self._follow(self.read_metrics())

    def _follow(self, lines: Iterable[Line]) -> None:
        """Keeps the last line of each split and the best evaluation, for status.json."""
        for line in lines:
            brief = {name: value for name, value in line.items() if name != "norms"}
            self._last[line["split"]] = brief
            if line["split"] == "val" and (not self._best or line["top1"] >= self._best["top1"]):
                self._best = brief

    def create_or_resume(self, config: Mapping[str, Any], changed_keys: ChangedKeys) -> None:
        """Creates the folder for this config, or finds that it already belongs to it.

        Args:
          config: the full tree.
          changed_keys: of two full trees, the old one first, the keys that must not differ and do.

        Raises:
          InputError: it holds a run with another config, or cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.config.exists():
                changed = changed_keys(self.read_config(), config)
                if changed:
                    differences = "\n".join(
                        f"  {path}: {old!r} there, {new!r} now"
                        for path, (old, new) in changed.items()
                    )
                    raise InputError(
                        f"The workdir {self.path} holds a run with another config:\n{differences}\n"
                        "Give another --workdir, or that run's config."
                    )
            if self.writes:
                write_atomically(self.config, json.dumps(config, indent=2) + "\n")
        except OSError as error:
            raise InputError(
                f"The workdir {self.path} cannot be written: {error.strerror}."
            ) from error

    def read_config(self) -> dict[str, Any]:
        """Returns the full config tree of the run.

        Raises:
          InputError: there is none, or it is no JSON.
        """
        try:
            config: Any = json.loads(self.config.read_text())
        except OSError as error:
            raise InputError(f"{self.path} holds no run: config.json is missing.") from error
        except ValueError as error:
            raise InputError(f"{self.config} is damaged: {error}.") from error
        if not isinstance(config, dict):
            raise InputError(f"{self.config} is damaged: it holds no JSON object.")
        return config

    def write_status(
        self, status: str, *, step: int | None, exit_code: int | None = None, message: str = ""
    ) -> None:
        """Writes status.json.

        Args:
          status: running, done, preempted, diverged or failed.
          step: steps done; None: as of the last line of metrics.
          exit_code: of the process, None while it runs.
          message: what the user was told.
        """
        if step is None:
            step = max((line["step"] for line in self._last.values()), default=0)
        fields = {
            "status": status,
            "step": step,
            "exit_code": exit_code,
            "message": message,
            "best": self._best,
            "last": self._last,
        }
        if self.writes:
            write_atomically(self.status, json.dumps(fields, indent=2) + "\n")

    def append_metrics(self, line: Line) -> None:
        """Adds one object to metrics.jsonl."""
        if self.writes:
            with self.metrics.open("a") as file:
                file.write(json.dumps(line) + "\n")
        self._follow([line])

    def read_metrics(self) -> list[dict[str, Any]]:
        """Returns the objects of metrics.jsonl; a last line cut short by a kill is left out.

        Raises:
          InputError: another line is no JSON.
        """
        return list(_whole_lines(self.metrics)) if self.metrics.exists() else []

    def truncate_metrics(self, step: int) -> None:
        """Drops the lines of steps that the checkpoint resumed from does not hold."""
        if self.metrics.exists():
            kept = [line for line in self.read_metrics() if line["step"] <= step]
            if self.writes:
                write_atomically(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
            self._last, self._best = {}, None
            self._follow(kept)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if text.endswith("\n"):
            try:
                yield json.loads(text)
            except ValueError as error:
                raise InputError(f"Line {number} of {path} is damaged: {error}.") from error
